// Filter the table below the field: rows that contain all words stay.
document.addEventListener("DOMContentLoaded", () => {
  const field = document.getElementById("filter");
  const rows = field ? [...document.querySelector("table").tBodies[0].rows] : [];
  field?.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
});
