
// Adds a button to each block of code. The pages work as well without it.
for (const block of document.querySelectorAll("pre, [data-copy]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy-button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    const text = block.textContent.trim();
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Browsers offer the clipboard by HTTPS and on this machine only.
      getSelection().selectAllChildren(block);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  const frame = document.createElement("div");
  frame.className = "copy-frame";
  block.replaceWith(frame);
  frame.append(block, button);
}
