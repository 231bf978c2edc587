"use strict";
// Clips one after the other; an answer is kept by the server before the next clip comes.
const $ = id => document.getElementById(id);
const KEYS = 9; // classes that have a key
const MANY = 12; // classes from which on they can be looked for
const token = decodeURIComponent(location.hash.slice(1)); // it is in no request's address, so in no log
let review = null; // what GET /list says
let place = 0;
let chosen = new Set(); // of several labels a clip
let sent = false; // an answer is under way

const make = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") node.textContent = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
};
// A name that may go on in the next line behind each - and _.
const breakable = name => name.split(/(?<=[-_])/).flatMap(part => [part, make("wbr")]);
const percent = value => `${(100 * value).toFixed(0)}\u00a0%`;
const clock = seconds => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
const several = names => names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0] || "nothing";
const said = answer => answer.length ? several(answer) : "left out";

function trouble(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

async function ask(path, options = {}) {
  let response;
  try {
    const headers = { Authorization: `Bearer ${token}`, ...options.headers };
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer. Does `mrkd review` still run?");
  }
  if (response.ok) return response;
  if (response.status === 401) throw new Error("Open the whole address that `mrkd review` printed, with what follows the #.");
  const told = await response.json().catch(() => ({}));
  throw new Error(told.error || `The server answers with status ${response.status}.`);
}

async function begin() {
  try {
    review = await (await ask("list")).json();
  } catch (error) {
    trouble(error.message);
    return;
  }
  $("where").textContent = `Answers are in ${review.answers}. Train on them: mrkd train --data ${review.data}. The sounds do not leave this machine.`;
  $("list").replaceChildren(...review.clips.map((clip, i) => {
    const button = make("button", { type: "button" }, make("span", { class: "mark", "aria-hidden": "true" }),
      make("strong", { text: clip.name }), make("small"));
    button.addEventListener("click", () => open(i, true));
    return make("li", {}, button);
  }));
  review.clips.forEach((_, i) => line(i));
  const first = review.clips.findIndex(clip => !clip.answer);
  await open(Math.max(first, 0), false);
  if (first < 0) $("status").textContent = "All clips are answered.";
}

function line(i) {
  const clip = review.clips[i], button = $("list").children[i].firstChild;
  button.querySelector(".mark").textContent = clip.answer ? "✓" : "";
  const answer = clip.answer ? `answered: ${said(clip.answer)}` : clip.reason;
  button.querySelector("small").textContent = `${several(clip.labels)} · ${answer}`;
  const done = review.clips.filter(each => each.answer).length;
  $("done").max = review.clips.length;
  $("done").value = done;
  $("count").textContent = `${done} of ${review.clips.length} answered`;
}

// The labels that it has, then what the branches say, then all others.
function order(clip) {
  return [...new Set([...clip.labels, clip.likeliest, ...review.classes])];
}

function show() {
  const clip = review.clips[place];
  $("clip").classList.toggle("answered", Boolean(clip.answer));
  $("reason").textContent = { "label doubted": "Its label looks wrong", "branches disagree": "The branches disagree", "uncertain": "The branches are uncertain" }[clip.reason] || clip.reason;
  $("name").textContent = clip.name;
  const others = clip.disagreement > 0 ? ` ${percent(clip.disagreement)} of the branches hear something else.` : "";
  $("says").textContent = `Labelled ${several(clip.labels)}, which has ${percent(clip.probability)}. The branches say ${clip.likeliest}, ${percent(clip.probability_likeliest)}.${others}`;
  const pressed = review.multi_label ? chosen : new Set(clip.answer || []);
  $("classes").replaceChildren(...order(clip).map((label, i) => {
    const text = make("span", {}, ...breakable(label));
    if (clip.labels.includes(label)) text.append(make("small", { text: "its label" }));
    else if (label === clip.likeliest) text.append(make("small", { text: "what the branches say" }));
    const button = make("button", { type: "button", "aria-pressed": String(pressed.has(label)) }, text);
    if (i < KEYS) {
      button.setAttribute("aria-keyshortcuts", String(i + 1));
      button.append(make("kbd", { "aria-hidden": "true", text: String(i + 1) }));
    }
    button.dataset.label = label;
    button.addEventListener("click", () => choose(label));
    return button;
  }));
  $("seek").hidden = review.classes.length <= MANY;
  $("confirm").hidden = !review.multi_label;
  $("confirm").disabled = chosen.size === 0;
  $("leave").setAttribute("aria-pressed", String(Boolean(clip.answer && !clip.answer.length)));
  $("undo").hidden = !clip.answer;
  $("before").disabled = place === 0;
  $("next").disabled = place === review.clips.length - 1;
  filter();
}

function filter() {
  const words = $("find").value.trim().toLowerCase();
  for (const button of $("classes").children) button.hidden = !button.dataset.label.toLowerCase().includes(words);
}

async function open(i, play) {
  place = i;
  const clip = review.clips[i];
  chosen = new Set(clip.answer || clip.labels);
  $("find").value = "";
  $("status").textContent = clip.answer ? `Your answer: ${said(clip.answer)}.` : "";
  $("clip").hidden = false;
  trouble("");
  show();
  for (const [at, each] of [...$("list").children].entries()) {
    if (at === i) each.firstChild.setAttribute("aria-current", "true");
    else each.firstChild.removeAttribute("aria-current");
  }
  const list = $("list"), own = list.children[i];
  const top = own.offsetTop - list.offsetTop; // the list scrolls, not the page
  if (top < list.scrollTop || top + own.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top;
  const audio = $("audio");
  audio.pause();
  try {
    const sound = await (await ask(`clips/${i}/sound`)).blob();
    if (place !== i) return;
    if (audio.src) URL.revokeObjectURL(audio.src);
    audio.src = URL.createObjectURL(sound);
    if (play) audio.play().catch(() => {}); // before the first click a browser may not
  } catch (error) {
    if (place === i) trouble(`${clip.name}: ${error.message}`);
  }
}

function choose(label) {
  if (!review.multi_label) return answer([label]);
  if (!chosen.delete(label)) chosen.add(label);
  show();
}

async function answer(labels) {
  if (sent) return;
  sent = true;
  const mine = place;
  trouble("");
  try {
    const body = JSON.stringify({ labels });
    const headers = { "Content-Type": "application/json" };
    review.clips[mine] = await (await ask(`clips/${mine}/answer`, { method: "PUT", body, headers })).json();
  } catch (error) {
    trouble(error.message);
    return;
  } finally {
    sent = false;
  }
  line(mine);
  if (place !== mine) return;
  const clips = review.clips;
  const later = clips.findIndex((clip, i) => i > mine && !clip.answer);
  const left = later >= 0 ? later : clips.findIndex(clip => !clip.answer);
  if (labels && left >= 0) await open(left, true);
  else {
    chosen = new Set(clips[mine].answer || clips[mine].labels);
    show();
    $("status").textContent = !labels ? "The answer was taken back." : "All clips are answered.";
  }
}

function tick() {
  const audio = $("audio"), length = Number.isFinite(audio.duration) ? audio.duration : 0;
  $("at").max = length || 1;
  $("at").value = audio.currentTime;
  $("clock").textContent = `${clock(audio.currentTime)} / ${clock(length)}`;
  $("play").textContent = audio.paused ? "▶ Play" : "❚❚ Pause";
  $("play").setAttribute("aria-pressed", String(!audio.paused));
  if (!audio.paused) requestAnimationFrame(tick);
}
for (const event of ["play", "pause", "seeked", "ended", "loadedmetadata"]) $("audio").addEventListener(event, tick);
$("audio").addEventListener("error", () => $("audio").src && trouble("This browser cannot play this kind of file."));
const toggle = () => $("audio").paused ? $("audio").play().catch(() => {}) : $("audio").pause();
$("play").addEventListener("click", toggle);
$("at").addEventListener("input", () => { $("audio").currentTime = Number($("at").value); });
$("find").addEventListener("input", filter);
$("confirm").addEventListener("click", () => answer([...chosen]));
$("leave").addEventListener("click", () => answer([]));
$("undo").addEventListener("click", () => answer(null));
const step = way => review.clips[place + way] && open(place + way, true);
$("before").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));

addEventListener("keydown", event => {
  if (!review || event.ctrlKey || event.altKey || event.metaKey) return;
  const on = event.target, typing = on.matches("input"), pressing = on.matches("button");
  if (on.matches("input[type=search]") && event.key === "Escape") on.blur();
  if (typing) return;
  const label = order(review.clips[place])[Number(event.key) - 1];
  if (/^[1-9]$/.test(event.key) && label !== undefined) choose(label);
  else if (event.key === "0") answer([]);
  else if (event.key === "Enter" && !pressing && review.multi_label && chosen.size) answer([...chosen]);
  else if (event.key === " " && !pressing) toggle();
  else if (event.key === "ArrowRight") step(1);
  else if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "/" && !$("seek").hidden) $("find").focus();
  else return;
  event.preventDefault();
});
begin();
