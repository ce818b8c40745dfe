// The page: uploads a video, follows the job, and shows what was found.

const at = (id) => document.getElementById(id);
const ours = { "x-cbam3d": "1" };
const percent = (value) => `${(100 * value).toFixed(value > 0.0995 ? 0 : 1)} %`;
let current = null; // the id of the job that is shown or awaited

const about = await (await fetch("api/about")).json();
at("title").textContent = about.runs.join(" and ");
document.title = `${about.runs.join(" and ")} – cbam3d`;
at("limits").textContent =
  `Videos of at most ${about.limits.mib} MiB and ${about.limits.seconds} seconds; they are deleted after ` +
  `${about.limits.keep_minutes} minutes.`;
about.examples.forEach((label, number) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.addEventListener("click", () => send(`api/examples/${number}`, null));
  at("examples").append(button);
  at("examples").hidden = false;
});

at("file").addEventListener("change", () => at("file").files.length && upload(at("file").files[0]));
const drop = at("drop");
drop.addEventListener("dragover", (event) => (event.preventDefault(), drop.classList.add("over")));
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) upload(event.dataTransfer.files[0]);
});
at("delete").addEventListener("click", async () => {
  await forget();
  at("video").removeAttribute("src");
  at("result").hidden = true;
});

function upload(file) {
  if (file.size > about.limits.mib * 2 ** 20) return fail(`The file is larger than ${about.limits.mib} MiB.`);
  send(`api/videos?name=${encodeURIComponent(file.name)}`, file);
}

async function forget() {
  if (current) await fetch(`api/videos/${current}`, { method: "DELETE", headers: ours }).catch(() => {});
  current = null;
}

async function send(address, body) {
  await forget();
  at("error").hidden = at("result").hidden = true;
  show("sending the video", 0);
  try {
    const answer = await fetch(address, { method: "POST", headers: ours, body });
    const said = await answer.json();
    if (!answer.ok) return fail(said.error);
    current = said.id;
    await follow(said.id);
  } catch (error) {
    fail("The server does not answer.");
  } finally {
    at("file").value = "";
  }
}

async function follow(id) {
  while (id === current) {
    const answer = await fetch(`api/videos/${id}`);
    const job = await answer.json();
    if (!answer.ok) return fail(job.error);
    if (job.state === "failed") return fail(`${job.name}: ${job.error}`);
    if (job.state === "done") return present(id, job);
    show(job.doing, job.share);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

function show(text, share) {
  at("status").hidden = false;
  at("doing").textContent = `${text} …`;
  at("progress").value = share;
}

function fail(text) {
  at("status").hidden = true;
  at("error").textContent = text;
  at("error").hidden = false;
}

function present(id, job) {
  const found = job.result;
  at("status").hidden = true;
  at("result").hidden = false;
  at("name").textContent = job.name;
  at("video").src = `api/videos/${id}/video`;
  const [width, height] = found.size;
  at("facts").textContent =
    `${found.seconds.toFixed(1)} s, ${width} x ${height}, ${found.fps.toFixed(1)} frames a second` +
    (found.problem ? `; damaged: ${found.problem}` : "");
  at("runs").replaceChildren(...found.runs.map((run, number) => card(id, run, number, found.seconds)));
}

function card(id, run, number, seconds) {
  const one = at("run").content.cloneNode(true).firstElementChild;
  one.querySelector("h3").textContent = run.run;
  if (run.holds) {
    const holds = one.querySelector(".holds");
    holds.hidden = false;
    holds.textContent = run.holds.length ? `What holds: ${run.holds.join(", ")}` : "No class holds.";
  }
  for (const { name, probability } of run.classes) {
    const row = one.querySelector("tbody").insertRow();
    cell(row, "name").textContent = name;
    const track = document.createElement("div");
    track.className = "track";
    const bar = document.createElement("div");
    bar.style.width = percent(probability).replace(" ", "");
    track.append(bar);
    cell(row, "bar").append(track);
    cell(row, "value").textContent = percent(probability);
  }
  one.querySelector(".confidence").textContent = run.confidence ?? "";
  if (run.looks) {
    one.querySelector(".looks").hidden = false;
    one.querySelector(".look").src = `api/videos/${id}/look/${number}`;
  }
  if (run.timeline) {
    one.querySelector(".happens").hidden = false;
    timeline(one, run.timeline, seconds);
  }
  return one;
}

function cell(row, name) {
  const made = row.insertCell();
  made.className = name;
  return made;
}

function timeline(one, found, seconds) {
  const place = one.querySelector(".timeline");
  for (const row of found.rows) {
    const lane = document.createElement("div");
    lane.className = "lane";
    const name = document.createElement("div");
    name.className = "name";
    name.textContent = row.name;
    const svg = element("svg", { viewBox: `0 0 ${seconds} 10`, preserveAspectRatio: "none" });
    row.probabilities.forEach((value, i) => {
      const place = { x: found.starts[i], width: found.step };
      svg.append(element("rect", { class: "cell", y: 10 - 10 * value, height: 10 * value, ...place }));
    });
    for (const event of found.events.filter((event) => event.label === row.name)) {
      const width = event.end_seconds - event.start_seconds;
      svg.append(element("rect", { class: "event", x: event.start_seconds, y: 0.5, width, height: 9 }));
    }
    lane.append(name, svg);
    place.append(lane);
  }
  const head = document.createElement("div");
  head.className = "head";
  const axis = document.createElement("div");
  axis.className = "axis";
  axis.append(...[0, 0.25, 0.5, 0.75, 1].map((share) => text(clock(share * seconds))));
  place.append(head, axis);
  place.addEventListener("click", (event) => {
    const box = place.getBoundingClientRect();
    jump(((event.clientX - box.left) / box.width) * seconds);
  });
  at("video").ontimeupdate = () => {
    for (const line of document.querySelectorAll(".head")) line.style.left = `${(100 * at("video").currentTime) / seconds}%`;
  };
  const events = one.querySelector(".events");
  if (!found.events.length) events.append(text("No class reaches its threshold."));
  for (const event of [...found.events].sort((a, b) => a.start_seconds - b.start_seconds)) {
    const button = document.createElement("button");
    button.type = "button";
    const times = `${clock(event.start_seconds)} – ${clock(event.end_seconds)}`;
    button.textContent = `${times} ${event.label} ${percent(event.score)}`;
    button.addEventListener("click", () => jump(event.start_seconds));
    events.append(button);
  }
}

function element(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function text(content) {
  const made = document.createElement("span");
  made.textContent = content;
  return made;
}

function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

function jump(seconds) {
  at("video").currentTime = seconds;
  at("video").scrollIntoView({ block: "nearest" });
}

// The camera
let stream = null;
at("camera").addEventListener("click", async () => {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: true });
  } catch (error) {
    return fail("The browser gives no access to a camera here.");
  }
  at("error").hidden = true;
  at("recorder").hidden = false;
  at("live").srcObject = stream;
  at("live").play();
});
at("cancel").addEventListener("click", close);
at("record").addEventListener("click", () => {
  const kind = ["video/mp4", "video/webm"].find((type) => MediaRecorder.isTypeSupported(type));
  const recorder = new MediaRecorder(stream, { mimeType: kind });
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = () => {
    close();
    upload(new File(parts, `camera.${kind.split("/")[1]}`, { type: kind }));
  };
  recorder.start();
  at("record").disabled = true;
  at("record").textContent = "recording …";
  setTimeout(() => recorder.stop(), 5000);
});

function close() {
  stream?.getTracks().forEach((track) => track.stop());
  at("recorder").hidden = true;
  at("record").disabled = false;
  at("record").textContent = "Record 5 seconds";
}
