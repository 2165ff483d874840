// The live log: one terminal for each step, drawn in order of first output, following its end unless the
// reader scrolled up.

const KEPT = 5000; // lines on the page; the whole log has an address of its own

class Log {
  /** `title(step)` names a group. Nothing is drawn before `flush`. */
  constructor(element, title) {
    this.element = element;
    this.title = title;
    this.clear();
    element.addEventListener("scroll", () => this.noticeScroll(), { passive: true });
  }

  clear() {
    this.element.replaceChildren();
    this.groups = new Map();
    this.waiting = [];
    this.count = 0;
    this.following = true;
  }

  write(step, text) {
    const last = this.waiting.at(-1);
    if (last?.step === step) last.text += text;
    else this.waiting.push({ step, text });
  }

  flush() {
    if (!this.waiting.length) return;
    for (const { step, text } of this.waiting.splice(0)) this.draw(this.group(step), text);
    while (this.count > KEPT) this.dropFirst();
    if (this.following) this.toEnd();
  }

  group(step) {
    if (!this.groups.has(step)) {
      const lines = h("div", { class: "lines" });
      this.element.append(h("section", {}, h("h3", {}, this.title(step)), lines));
      this.groups.set(step, { lines, terminal: new Terminal(), open: null });
    }
    return this.groups.get(step);
  }

  draw(group, text) {
    const { done, open } = group.terminal.write(text);
    for (const cells of done) {
      this.line(group).replaceChildren(...lineNodes(cells));
      group.open = null;
    }
    if (open.length || group.open) this.line(group).replaceChildren(...lineNodes(open));
  }

  line(group) {
    if (!group.open) {
      group.open = group.lines.appendChild(h("div"));
      this.count++;
    }
    return group.open;
  }

  dropFirst() {
    const [step, group] = this.groups.entries().next().value;
    const first = group.lines.firstChild;
    if (!first || first === group.open) {
      group.lines.parentElement.remove();
      this.groups.delete(step);
    }
    if (!first) return;
    first.remove();
    this.count--;
  }

  noticeScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    this.following = scrollHeight - scrollTop - clientHeight < 32;
    this.element.classList.toggle("away", !this.following);
  }

  toEnd() {
    this.element.scrollTop = this.element.scrollHeight;
  }

  /** The log as plain text, as it is shown. */
  text() {
    return [...this.groups].map(([step, { lines }]) =>
      [`== ${step}`, ...[...lines.children].map((line) => line.textContent)].join("\n")).join("\n") + "\n";
  }
}
