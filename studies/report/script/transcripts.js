// Prompts and replies of the language model.

const runMenu = byId("transcript-run"), trialMenu = byId("transcript-trial");
if (runMenu) {
  const showTranscript = () => {
    byId("transcript").textContent = data("transcripts")[Number(trialMenu.value)].text;
  };
  const listTrials = () => {
    trialMenu.replaceChildren(...data("transcripts").flatMap(({run, trial, about}, i) =>
      String(run) === runMenu.value ? [new Option(`trial ${trial}: ${about}`, i)] : []));
    showTranscript();
  };
  runMenu.addEventListener("change", listTrials);
  trialMenu.addEventListener("change", showTranscript);
  listTrials();
}
