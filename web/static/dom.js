// Elements from data, and the least change that makes a shown tree look like a new one, so that focus,
// scrolling and running animations survive a render. Text only ever becomes text nodes.

const byId = (id) => document.getElementById(id);

/** An element; a null or false attribute or child is left out, `true` is an attribute without a value. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value != null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false && child !== ""));
  return element;
}

/** Make `parent` show `fresh` nodes; those with a `data-key` keep their element wherever they move. */
function fill(parent, fresh) {
  const keyed = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstChild;
  for (const child of fresh) {
    const key = child.dataset?.key;
    const old = key ? keyed.get(key) : at?.dataset?.key ? null : at;
    if (!old) parent.insertBefore(child, at);
    else {
      if (old === at) at = at.nextSibling;
      else parent.insertBefore(old, at);
      morph(old, child);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function morph(old, fresh) {
  if (old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  fill(old, [...fresh.childNodes]);
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
