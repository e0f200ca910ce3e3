//! The page at `/`: static, without anything from elsewhere; it reads `/api/status` every two seconds.

pub(crate) const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Tessera</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 2rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top; }
th { font-weight: 600; color: #555; }
#error { color: #a00; }
</style>
<h1>Tessera</h1>
<p id="error"></p>
<div id="state">reading…</div>
<p><a href="/metrics">metrics</a> · <a href="/health">health</a> · <a href="/api/status">status as JSON</a></p>
<script>
const cell = value => {
  const td = document.createElement("td");
  td.textContent = typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
  return td;
};
const table = rows => {
  const element = document.createElement("table");
  const names = [...new Set(rows.flatMap(row => Object.keys(row)))];
  const head = element.insertRow();
  for (const name of names) {
    const th = document.createElement("th");
    th.textContent = name;
    head.append(th);
  }
  for (const row of rows) {
    element.insertRow().append(...names.map(name => cell(row[name] ?? "")));
  }
  return element;
};
async function show() {
  try {
    const status = await (await fetch("/api/status")).json();
    const parts = [];
    const plain = {};
    for (const [name, value] of Object.entries(status)) {
      if (Array.isArray(value)) {
        const heading = document.createElement("h2");
        heading.textContent = `${name} (${value.length})`;
        parts.push(heading, table(value));
      } else {
        plain[name] = value;
      }
    }
    document.getElementById("state").replaceChildren(table([plain]), ...parts);
    document.getElementById("error").textContent = "";
  } catch (error) {
    document.getElementById("error").textContent = `This node does not answer: ${error}`;
  }
}
show();
setInterval(show, 2000);
</script>
</html>
"#;
