// What scrolls can be scrolled with the keyboard, too.
document.addEventListener('DOMContentLoaded', () => {
  for (const wide of document.querySelectorAll('.md-typeset__scrollwrap')) wide.tabIndex = 0
})
