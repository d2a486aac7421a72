// SPDX-License-Identifier: AGPL-3.0-or-later
// The texts of the page in the language of the user: one file per language, keyed by the English text.

export const LANGUAGES = [["en", "English"], ["fr", "Français"], ["de", "Deutsch"]];
const CHOSEN_KEY = "OE2.languageKey"; // where Orthanc Explorer 2, on the same origin, stores the choice: both pages follow it
const DEEPER = " › "; // separates the parts of the name of a nested attribute
const NUMBER = /\{(\w+)\}/g;

let chosen = "en";
let words = {};
let rules = new Intl.PluralRules("en");
let numbers = new Intl.NumberFormat("en");

export const language = () => chosen;

// The browser's locale for this language, such as en-GB, for dates and numbers.
export function locale() {
  return [...navigator.languages].find((language) => language.toLowerCase().split("-")[0] === chosen) || chosen;
}

/* The same choice as in Orthanc Explorer 2: the language chosen in this browser, else its "DefaultLanguage", else the
   browser's first language that is available, else English. */
export async function chooseLanguage(usual) {
  const preferences = [localStorage.getItem(CHOSEN_KEY), usual, ...navigator.languages].filter(Boolean).map((language) => language.toLowerCase().split("-")[0]);
  await useLanguage(preferences.find((language) => LANGUAGES.some(([name]) => name === language)) || "en");
}

async function useLanguage(name) {
  const answer = await fetch(new URL(`languages/${name}.json`, document.baseURI), { credentials: "same-origin" });
  words = answer.ok ? await answer.json() : {};
  chosen = name;
  rules = new Intl.PluralRules(name);
  numbers = new Intl.NumberFormat(locale());
  document.documentElement.lang = name;
}

export function changeLanguage(name) {
  localStorage.setItem(CHOSEN_KEY, name);
  location.reload();
}

export const count = (number) => numbers.format(number);
const filled = (text, values) => text.replace(NUMBER, (all, name) => (name in values ? values[name] : all));

// t("Page {page} of {last}", {page: 1, last: 9})
export const t = (text, values = {}) => filled(words[text] || text, values);

// n(3, "{n} workitem|{n} workitems"): the singular and the plural form.
export function n(number, text, values = {}) {
  const forms = (words[text] || text).split("|");
  return filled(rules.select(number) === "one" ? forms[0] : forms[forms.length - 1], { n: count(number), ...values });
}

// tx("since {when}", {when: element}): a list of texts and elements.
export function tx(text, elements) {
  return (words[text] || text).split(/\{(\w+)\}/).map((part, at) => (at % 2 ? elements[part] : part)).filter((part) => part !== "");
}

const value = (content) => (typeof content === "number" ? count(content) : content.words ? sentenceWords(content) : content.seconds === undefined ? content : length(content.seconds));

// A sentence of the server (management/sentences.py): {words, values}; a value may be a sentence or a duration.
export function sentenceWords({ words: text, values }) {
  const valuesInWords = Object.fromEntries(Object.entries(values).map(([name, content]) => [name, value(content)]));
  return "n" in values ? n(values.n, text, valuesInWords) : t(text, valuesInWords);
}

const UNITS = Object.entries({ day: 86_400, hour: 3_600, minute: 60, second: 1 });

// "3 minutes": a duration in its largest unit.
function length(seconds) {
  const [unit, size] = UNITS.find(([, length]) => seconds >= length) || UNITS[3];
  return new Intl.NumberFormat(locale(), { style: "unit", unit, unitDisplay: "long" }).format(Math.floor(seconds / size));
}

// Marks a text as a pattern for `recognized`, so that the test of languages finds it.
export const pattern = (text) => text;

const PLACEHOLDERS = /\\\{(\w+)\\\}/g;

// Translates `text`, which the server has stored in English, such as an entry of a history, by the first of the patterns
// that it matches. A pattern is a text with placeholders {name}; `inner` has functions that translate their values.
export function recognized(text, patterns, inner = {}) {
  for (const pattern of patterns) {
    const names = [];
    const source = pattern.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(PLACEHOLDERS, (all, name) => (names.push(name), "(.+)"));
    const match = new RegExp(`^${source}$`, "s").exec(text);
    if (match) return t(pattern, Object.fromEntries(names.map((name, at) => [name, inner[name] ? inner[name](match[at + 1]) : match[at + 1]])));
  }
  return text;
}

// Translates a word of the server's vocabulary; any other text stays as it is.
export const translated = (text) => words[text] || text.split(DEEPER).map((part) => words[part] || part).join(DEEPER);
