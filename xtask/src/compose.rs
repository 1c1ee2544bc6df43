//! `docker compose`, version 2: whichever is there, else the plugin of Debian's next release.
//!
//! Debian 12 has only compose 1. Debian 13's package holds one static binary, which runs anywhere; it is taken out of the
//! package and put where every user's `docker` looks, and nothing else of that release is installed.

use std::path::Path;

use crate::Result;
use crate::apt;
use crate::shell::{command, output, run, sandbox_dir};

const PLUGIN: &str = "/usr/local/lib/docker/cli-plugins/docker-compose";
const IN_PACKAGE: &str = "usr/libexec/docker/cli-plugins/docker-compose";
const RELEASE: &str = "trixie";

/// The version of `docker compose`, when it works.
pub(crate) fn version() -> Option<String> {
    output(&mut command("docker", &["compose", "version", "--short"])).ok()
}

/// The version of `docker-compose` 1, where it is installed beside `docker compose`: a program of its own, which docker does
/// not look for.
pub(crate) fn version_1() -> Option<String> {
    let version = output(&mut command("docker-compose", &["version", "--short"])).ok()?;
    version.starts_with("1.").then_some(version)
}

/// Sees to it that `docker compose` works. Returns its version.
pub(crate) fn ensure() -> Result<String> {
    if let Some(version) = version() {
        return Ok(version);
    }
    println!(
        "setup: installing {PLUGIN}: the stack is run with compose 2, and this Debian has none"
    );
    apt::need_root("install the compose plugin")?;
    let scratch = sandbox_dir()?.join("apt");
    let package = apt::download("docker-compose", RELEASE, &scratch)?;
    let unpacked = scratch.join("unpacked");
    run(command("dpkg-deb", &["-x"]).arg(&package).arg(&unpacked))?;
    run(command("install", &["-D", "-m", "755"])
        .arg(unpacked.join(IN_PACKAGE))
        .arg(PLUGIN))?;
    remove(&scratch)?;
    version().ok_or_else(|| {
        format!("`docker compose version` still fails with {PLUGIN} in place; run it to see why")
    })
}

fn remove(dir: &Path) -> Result<()> {
    std::fs::remove_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))
}
