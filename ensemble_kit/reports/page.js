"use strict";
(() => {
  // Tables: a click on a column's head sorts, numbers by size and names by their letters; what has no number stays last.
  const text = (row, column) => row.cells[column].textContent.trim();
  const compare = (a, b, column, sign) => {
    if (column === 0) return sign * a.localeCompare(b, undefined, { numeric: true });
    const x = parseFloat(a), y = parseFloat(b);
    if (isNaN(x) && isNaN(y)) return sign * a.localeCompare(b);
    return isNaN(x) ? 1 : isNaN(y) ? -1 : sign * (x - y);
  };
  for (const table of document.querySelectorAll("table.sorts")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const first = column === 0 ? "ascending" : "descending", other = column === 0 ? "descending" : "ascending";
        const way = head.getAttribute("aria-sort") === first ? other : first;
        heads.forEach(each => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", way);
        const sign = way === "ascending" ? 1 : -1;
        const rows = [...body.rows].sort((a, b) => compare(text(a, column), text(b, column), column, sign));
        body.append(...rows);
      });
    });
  }
  // Pictures: truth and answer by turns, 1.4 times a second, until the button is pressed again.
  for (const view of document.querySelectorAll(".view.blinks")) {
    const of = name => view.querySelector(`input[data-layer="${name}"]`);
    const button = document.createElement("button");
    let timer = 0;
    const stop = () => { clearInterval(timer); timer = 0; button.setAttribute("aria-pressed", "false"); };
    button.type = "button";
    button.textContent = "blink";
    button.title = "truth and answer by turns";
    stop();
    button.addEventListener("click", () => {
      if (timer) return stop();
      button.setAttribute("aria-pressed", "true");
      const turn = () => { (of("truth").checked ? of("answer") : of("truth")).checked = true; };
      turn();
      timer = setInterval(turn, 700);
    });
    view.querySelectorAll("input").forEach(input => input.addEventListener("change", stop));
    view.querySelector(".stack").before(button);
  }
})();
