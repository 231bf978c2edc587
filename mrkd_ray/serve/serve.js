"use strict";
// One recording in, one answer out. All that is shown comes from POST /classify.
const $ = id => document.getElementById(id);
const LANES = 6; // classes in a timeline
const ROWS = 8; // classes in the table
const WINDOWS = 300; // in a timeline, at most
let about = null; // what GET /model says
let token = "";
let answer = null;
let asked = 0; // questions so far: an answer to an older one is not shown
let recorder = null;

const make = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") node.textContent = value;
    else if (key === "style") node.style.cssText = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
};
// A name that may go on in the next line behind each - and _.
const breakable = name => name.split(/(?<=[-_])/).flatMap(part => [part, make("wbr")]);
const percent = value => `${(100 * value).toFixed(value >= .9995 || value < .0005 ? 0 : 1)} %`;
const clock = seconds => {
  const whole = Math.floor(seconds), tenths = answer && answer.seconds < 60;
  const rest = tenths ? (seconds % 60).toFixed(1).padStart(4, "0") : String(whole % 60).padStart(2, "0");
  return `${Math.floor(whole / 60)}:${rest}`;
};
const several = names => names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0];

function say(text) { $("status").textContent = text; }
function trouble(text) {
  say("");
  $("error").textContent = text;
  $("error").hidden = !text;
}
const wait = seconds => new Promise(done => setTimeout(done, 1000 * seconds));

// Asks the server; where it is full it says when to come again.
async function ask(path, options = {}, tries = 5) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer. Does it still run?");
  }
  if (response.status >= 500 && tries > 1) { // full, or one of its processes ended: to ask twice does no harm
    say("The server is busy: trying again …");
    await wait(Number(response.headers.get("Retry-After") || 1));
    return ask(path, options, tries - 1);
  }
  if (response.status === 401) $("token").hidden = false;
  if (!response.ok) {
    const told = await response.json().catch(() => ({}));
    throw new Error(told.error || `The server answers with status ${response.status}.`);
  }
  return response.json();
}

async function begin() {
  try {
    about = await ask("model");
  } catch (error) {
    trouble(sentence(error.message));
    return;
  }
  $("token").hidden = true;
  trouble("");
  const names = about.branches.map(branch => branch.name);
  const words = { ensemble: "ensemble of all", cascade: "cascade, cheapest first" };
  $("model").replaceChildren(...about.models.map(name => make("option", { value: name, text: words[name] || name })));
  $("about").textContent = names.length > 1
    ? `${names.length} networks listen, each to another form of the same sound: ${several(names)}. ${about.classes.length} classes.`
    : `${names[0]}, ${about.classes.length} classes.`;
  const minutes = about.max_seconds >= 120 ? `${Math.floor(about.max_seconds / 60)} minutes` : `${about.max_seconds} seconds`;
  $("limits").textContent = `up to ${minutes} and ${about.max_mb} MB`;
}
const sentence = text => text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");

// Seconds of a file, where the browser can read it.
const lengthOf = url => new Promise(done => {
  const audio = $("audio");
  const ended = () => done(Number.isFinite(audio.duration) ? audio.duration : null);
  audio.onloadedmetadata = ended;
  audio.onerror = () => done(null);
  audio.src = url;
});

function windowsFor(seconds) {
  if (seconds === null || seconds < 3 * about.window) return {};
  const hop = Math.max(about.window / 2, seconds / WINDOWS);
  return { window: Math.max(about.window, hop).toFixed(3), hop: hop.toFixed(3) };
}

async function classify(file) {
  const mine = ++asked;
  trouble("");
  $("result").hidden = true;
  pause();
  if (!about) await begin();
  if (!about) return;
  if (file.size > 1e6 * about.max_mb) {
    trouble(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB, and ${about.max_mb} MB are the limit here.`);
    return;
  }
  say(`Listening to ${file.name} …`);
  if ($("audio").src) URL.revokeObjectURL($("audio").src);
  const known = await lengthOf(URL.createObjectURL(file));
  const send = extra => {
    const body = new FormData();
    body.append("file", file);
    const model = $("model").value;
    return ask(`classify?${new URLSearchParams({ model, views: "true", ...extra })}`, { method: "POST", body });
  };
  try {
    let found = await send(windowsFor(known));
    if (known === null && found.seconds >= 3 * about.window) found = await send(windowsFor(found.seconds));
    if (mine !== asked) return;
    answer = found;
    show(file.name, known !== null);
  } catch (error) {
    if (mine === asked) trouble(`${file.name}: ${error.message}`);
  }
}

// Whether a class is heard; else the answer is that none of them is, or silence.
const isNamed = said => said.labels ? said.labels.length > 0 : said.answer === said.label;
const words = said => isNamed(said) && said.labels ? several(said.labels) : said.answer;

function agreement() {
  const branches = answer.branches, named = isNamed(answer);
  const mean = branches.length > 1 ? "Their mean" : "It";
  const sure = named ? `${mean} is ${percent(answer.confidence)} sure.`
    : answer.answer === "silence" ? "" : `The nearest class is ${answer.label}, with ${percent(answer.confidence)}.`;
  if (branches.length === 1) return `${branches[0].branch} was asked alone. ${sure}`.trim();
  if (answer.agree && branches[0].answer === answer.answer) return `All ${branches.length} branches say so. ${sure}`.trim();
  return `The branches ${answer.agree ? "differ from their mean:" : "disagree:"} ${several(branches.map(branch => `${branch.branch} says ${branch.answer}`))}. ${sure}`;
}

function show(name, plays) {
  say("");
  $("name").textContent = `${name}, ${answer.seconds.toFixed(1)} s`;
  $("label").textContent = words(answer);
  $("sure").textContent = isNamed(answer) ? percent(answer.confidence) : "";
  document.querySelector(".verdict").classList.toggle("split", !answer.agree);
  document.querySelector(".verdict").classList.toggle("none", !isNamed(answer));
  $("agreement").textContent = agreement();
  $("play").disabled = !plays;
  $("play").title = plays ? "" : "This browser cannot play this kind of file.";
  tracks();
  table();
  $("moment").textContent = answer.windows.some(isNamed)
    ? "The timeline says what is heard when. A click plays from there; arrow keys go from sound to sound."
    : answer.windows.length ? "None of its classes is heard at any time." : "";
  $("result").hidden = false;
  $("result").focus({ preventScroll: true });
  tick();
}

function named(title, says, differs) {
  const node = make("div", { class: "track-name" }, make("strong", { text: title }));
  if (says) node.append(" ", make("span", { class: differs ? "other" : "says", text: says }));
  return node;
}

function outline(points) {
  const width = points.length, loudest = Math.max(.05, ...points.map(([low, high]) => Math.max(-low, high)));
  const y = value => (50 - 46 * value / loudest).toFixed(1);
  const top = points.map(([, high], x) => `${x} ${y(Math.max(high, .005 * loudest))}`);
  const bottom = points.map(([low], x) => `${x} ${y(Math.min(low, -.005 * loudest))}`).reverse();
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg"), path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", `0 0 ${width - 1} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "Waveform");
  path.setAttribute("d", `M${top.join("L")}L${bottom.join("L")}Z`);
  path.setAttribute("fill", "currentColor");
  svg.append(path);
  return svg;
}

// The classes of a window.
const heard = each => each.labels || (isNamed(each) ? [each.label] : []);
// Windows that touch and agree are one event.
function events(wanted, label) {
  const found = [], sure = each => each.probabilities[label] ?? each.confidence;
  for (const each of answer.windows.filter(wanted)) {
    const last = found.at(-1);
    if (last && each.start <= last.end) {
      last.end = each.end;
      last.confidence = Math.max(last.confidence, sure(each));
    } else found.push({ start: each.start, end: each.end, confidence: sure(each) });
  }
  return found;
}

function lane(title, wanted, kind = "") {
  const track = make("div", { class: `track lane ${kind}`, role: "group", "aria-label": title });
  for (const each of events(wanted, title)) {
    const told = `${title}, ${clock(each.start)} to ${clock(each.end)}`;
    const left = 100 * each.start / answer.seconds, width = 100 * (each.end - each.start) / answer.seconds;
    const button = make("button", {
      type: "button", class: "event", "aria-label": told, title: told, tabindex: "-1",
      style: `left:${left}%;width:${width}%`,
    });
    button.addEventListener("click", event => {
      event.stopPropagation();
      choose(button, kind ? told : `${told}: up to ${percent(each.confidence)}`);
      seek(each.start, true);
    });
    track.append(button);
  }
  return [named(title), track];
}

function choose(button, text) {
  for (const each of document.querySelectorAll(".event")) {
    each.removeAttribute("aria-current");
    each.tabIndex = -1;
  }
  button.setAttribute("aria-current", "true");
  button.tabIndex = 0;
  $("moment").textContent = text;
}

function tracks() {
  const rows = [named("Sound"), make("div", { class: "track wave" }, outline(answer.waveform))];
  for (const branch of answer.branches) {
    if (!branch.view) continue;
    const own = about.branches.find(each => each.name === branch.branch);
    const picture = make("img", { src: branch.view, alt: `What ${branch.branch} sees: ${own.description}` });
    const differs = branch.answer !== answer.answer;
    const sure = isNamed(branch) ? ` ${percent(branch.confidence)}` : "";
    rows.push(
      named(branch.branch, `${differs ? "says " : ""}${branch.answer}${sure}`, differs),
      make("div", { class: "track view", title: own.description }, picture),
    );
  }
  if (answer.windows.length) {
    const seconds = {};
    for (const each of answer.windows) for (const label of heard(each)) seconds[label] = (seconds[label] || 0) + 1;
    const often = Object.keys(seconds).sort((a, b) => seconds[b] - seconds[a]);
    for (const label of often.slice(0, LANES)) rows.push(...lane(label, each => heard(each).includes(label)));
    const rest = new Set(often.slice(LANES));
    if (rest.size) rows.push(...lane(`${rest.size} other classes`, each => heard(each).some(label => rest.has(label))));
    if (answer.windows.some(each => !each.agree)) rows.push(...lane("Branches disagree", each => !each.agree, "differ"));
  }
  const axis = make("div", { class: "axis", "aria-hidden": "true" });
  const step = [.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800].find(each => answer.seconds / each <= (innerWidth < 640 ? 4 : 8)) || 3600;
  for (let at = 0; at < answer.seconds - step / 2; at += step) {
    axis.append(make("span", { text: step < 1 ? `${at} s` : clock(at).replace(/\.0$/, ""), style: `left:${100 * at / answer.seconds}%` }));
  }
  axis.append(make("span", { class: "last", text: clock(answer.seconds), style: "left:100%" }));
  $("tracks").replaceChildren(...rows, axis);
  if (!answer.branches.some(branch => branch.view)) {
    axis.after(make("p", { class: "axis soft", text: "Pictures are made of recordings of up to two minutes." }));
  }
  for (const track of document.querySelectorAll(".track")) {
    track.append(make("div", { class: "head", style: "left:0" }));
    track.addEventListener("click", event => {
      const box = track.getBoundingClientRect();
      seek((event.clientX - box.left) / box.width * answer.seconds, true);
    });
  }
  const first = document.querySelector(".event");
  if (first) first.tabIndex = 0;
}

function table() {
  const columns = answer.branches.length > 1 ? [{ title: "ensemble", all: true, of: answer }] : [];
  for (const branch of answer.branches) columns.push({ title: branch.branch, of: branch });
  const highest = name => Math.max(...columns.map(column => column.of.probabilities[name]));
  const order = Object.keys(answer.probabilities).sort((a, b) => answer.probabilities[b] - answer.probabilities[a]);
  const rows = order.slice(0, ROWS);
  for (const column of columns) if (!rows.includes(column.of.label)) rows.push(column.of.label);
  const own = name => about.branches.find(each => each.name === name);
  const head = make("tr", {}, make("th", { scope: "col", text: "class" }), ...columns.map(column => {
    const node = make("th", { scope: "col" }, ...breakable(column.title));
    if (!column.all) node.append(make("small", { text: `${own(column.title).representation} · ${own(column.title).network}` }));
    return node;
  }));
  const body = rows.map(name => make("tr", {}, make("th", { scope: "row" }, ...breakable(name)), ...columns.map(column => {
    const value = column.of.probabilities[name], first = column.of.label === name;
    const kind = `${column.all ? "all " : ""}${first ? "first " : ""}${first && name !== answer.label ? "differs" : ""}`;
    const bar = make("i", { "aria-hidden": "true" }, make("b", { style: `width:${100 * value}%` }));
    return make("td", { class: kind }, make("div", { class: "bar" }, make("span", { text: percent(value) }), bar));
  })));
  $("classes").style.minWidth = `${6 + 4.1 * columns.length}rem`;
  $("classes").replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
  const left = order.filter(name => !rows.includes(name));
  $("table-note").textContent = left.length
    ? `${left.length} more classes have at most ${percent(Math.max(...left.map(highest)))}.`
    : "";
}

function pause() { $("audio").pause(); }
function seek(seconds, play) {
  const audio = $("audio");
  if ($("play").disabled) return;
  audio.currentTime = Math.max(0, Math.min(seconds, answer.seconds - .01));
  if (play) audio.play();
  tick();
}
function tick() {
  const audio = $("audio");
  if (!answer) return;
  const at = Math.min(audio.currentTime, answer.seconds);
  $("clock").textContent = `${clock(at)} / ${clock(answer.seconds)}`;
  for (const head of document.querySelectorAll(".head")) head.style.left = `${100 * at / answer.seconds}%`;
  if (!audio.paused) requestAnimationFrame(tick);
}
for (const event of ["play", "pause", "seeked", "ended"]) {
  $("audio").addEventListener(event, () => {
    const playing = !$("audio").paused;
    $("play").textContent = playing ? "❚❚ Pause" : "▶ Play";
    $("play").setAttribute("aria-pressed", String(playing));
    tick();
  });
}
$("play").addEventListener("click", () => $("audio").paused ? $("audio").play() : pause());
$("tracks").addEventListener("keydown", event => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step || !event.target.classList.contains("event")) return;
  event.preventDefault();
  const all = [...document.querySelectorAll(".event")];
  const next = all[(all.indexOf(event.target) + step + all.length) % all.length];
  choose(next, next.title);
  next.focus();
});

// A microphone's samples are sent as WAV: every server reads it.
function wav(samples, rate) {
  const bytes = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, word) => [...word].forEach((letter, i) => bytes.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"); bytes.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true); bytes.setUint16(20, 1, true); bytes.setUint16(22, 1, true);
  bytes.setUint32(24, rate, true); bytes.setUint32(28, 2 * rate, true);
  bytes.setUint16(32, 2, true); bytes.setUint16(34, 16, true);
  text(36, "data"); bytes.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => bytes.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, value)), true));
  return new Blob([bytes], { type: "audio/wav" });
}

async function record() {
  trouble("");
  if (!navigator.mediaDevices) {
    trouble("This browser records only on pages of this machine (localhost) or of https.");
    return;
  }
  let stream;
  try {
    const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: raw });
  } catch (error) {
    trouble(error.name === "NotFoundError" ? "There is no microphone here." : "The microphone was not allowed.");
    return;
  }
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.ondataavailable = event => parts.push(event.data);
  const began = performance.now();
  const most = about ? about.max_seconds : 60;
  const timer = setInterval(() => {
    const seconds = (performance.now() - began) / 1000;
    $("record-text").textContent = `Stop ${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
    if (seconds > most - 1) recorder.stop();
  }, 200);
  recorder.onstop = async () => {
    clearInterval(timer);
    stream.getTracks().forEach(track => track.stop());
    $("record").classList.remove("recording");
    $("record-text").textContent = "Record";
    const context = new AudioContext();
    try {
      const heard = await context.decodeAudioData(await new Blob(parts).arrayBuffer());
      const file = new File([wav(heard.getChannelData(0), heard.sampleRate)], "Your recording", { type: "audio/wav" });
      await classify(file);
    } catch {
      trouble("Nothing was recorded: speak a little longer.");
    } finally {
      context.close();
      recorder = null;
    }
  };
  recorder.start();
  $("record").classList.add("recording");
  $("record-text").textContent = "Stop 0:00";
  say("Recording …");
}
$("record").addEventListener("click", () => recorder ? recorder.stop() : record());

$("file").addEventListener("change", event => {
  const [file] = event.target.files;
  if (file) classify(file);
  event.target.value = ""; // the same file may be chosen again
});
addEventListener("dragover", event => { event.preventDefault(); $("drop").classList.add("over"); });
addEventListener("dragleave", () => $("drop").classList.remove("over"));
addEventListener("drop", event => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) classify(file);
});
$("token").addEventListener("submit", event => {
  event.preventDefault();
  token = $("token-text").value.trim();
  begin();
});
if (document.body.dataset.needsToken === "yes") $("token").hidden = false;
else begin();
