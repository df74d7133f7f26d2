// The archive comes with the answer and becomes a file in the browser: none lies on the server.
(archive) => {
  if (!archive) return;
  const bytes = Uint8Array.from(atob(archive), (letter) => letter.charCodeAt(0));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: "application/zip" }));
  link.download = "metagen-demo.zip";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
