// A line goes over the picture of the cue sheet with the sound. Media events do not bubble, but they can be captured.
function followSound(event) {
  const line = document.querySelector(".playhead");
  const video = event.target;
  if (!line || !video.matches(".made video")) return;
  const { start, end } = line.dataset;
  line.hidden = false;
  line.style.left = `${Number(start) + (end - start) * (video.currentTime / video.duration)}%`;
}
for (const name of ["timeupdate", "seeking"]) document.addEventListener(name, followSound, true);
