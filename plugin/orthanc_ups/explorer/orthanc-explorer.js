/* SPDX-License-Identifier: AGPL-3.0-or-later */
/* Buttons of the UPS worklist in the legacy Orthanc Explorer (jQuery Mobile 1.1, hence ES5 and .live). */

(function () {
  'use strict';

  var PAGE = '../ups/app/index.html';
  var LEVELS = ['patient', 'study', 'series', 'instance'];
  var WORDS = { patient: 'patient', study: 'study', series: 'study', instance: 'study' };

  function item(address, words, icon) {
    var anchor = $('<a>').attr('href', address).attr('rel', 'external').attr('data-ajax', 'false').text(words);
    return $('<li>').attr('data-icon', icon).append(anchor);
  }

  // On the home page: one button below the buttons of the lookup.
  $('#lookup').live('pagebeforeshow', function () {
    $('#ups-worklist').remove();
    var button = $('<a>')
      .attr('id', 'ups-worklist')
      .attr('href', PAGE)
      .attr('rel', 'external')
      .attr('data-role', 'button')
      .attr('data-icon', 'grid')
      .attr('data-theme', 'b')
      .attr('data-ajax', 'false')
      .text('UPS worklist');
    button.insertAfter($('#lookup-result'));
    button.button();
  });

  // On the page of a resource: a list below the Explorer's information.
  function insert(level) {
    var identifier = $.mobile.pageData ? $.mobile.pageData.uuid : null;
    var name = 'ups-' + level;
    $('#' + name).remove();
    if (!identifier) {
      return;
    }
    var resource = level + '/' + encodeURIComponent(identifier);
    var list = $('<ul>')
      .attr('id', name)
      .attr('data-role', 'listview')
      .attr('data-inset', 'true')
      .attr('data-theme', 'd')
      .attr('data-divider-theme', 'c')
      .append($('<li>').attr('data-role', 'list-divider').text('UPS worklist'))
      .append(item(PAGE + '#/worklist?of=' + resource, 'Workitems of this ' + WORDS[level], 'search'))
      .append(item(PAGE + '#/new?for=' + resource, 'New workitem for this ' + WORDS[level], 'plus'));
    if (level === 'patient') {
      list.append(item(PAGE + '#/many?patient=' + encodeURIComponent(identifier), 'New workitem for each study', 'plus'));
    }
    list.insertAfter($('#' + level + '-info'));
    list.listview();
  }

  function onPage(level) {
    $('#' + level).live('pagebeforeshow', function () {
      insert(level);
    });
  }

  for (var i = 0; i < LEVELS.length; i++) {
    onPage(LEVELS[i]);
  }

  // The Explorer also goes from one resource to another of the same level without changing the page.
  $(window).bind('hashchange', function () {
    var page = $.mobile.activePage ? $.mobile.activePage.attr('id') : '';
    if ($.inArray(page, LEVELS) >= 0) {
      insert(page);
    }
  });
})();
