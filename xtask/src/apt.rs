//! Debian packages, with the mirror, proxy and keys that this machine's apt is set up with.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::shell::{command, output, run};

/// Signs every Debian release; part of any Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A package and the reason it is wanted.
pub(crate) struct Wanted {
    pub(crate) package: &'static str,
    pub(crate) why: &'static str,
}

/// Installs packages, saying why. Needs root.
pub(crate) fn install(wanted: &[Wanted]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    for one in wanted {
        println!("setup: installing {}: {}", one.package, one.why);
    }
    need_root("install packages")?;
    update()?;
    let mut apt = command(
        "apt-get",
        &["install", "-y", "-q", "--no-install-recommends"],
    );
    apt.args(wanted.iter().map(|one| one.package));
    run(apt.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Refuses, with the reason, when this is not root.
pub(crate) fn need_root(what: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(format!(
            "only root may {what}: run `sudo cargo xtask setup` once"
        ))
    }
}

/// One Debian archive that apt knows: its base address and a release in it (`bookworm`, `bookworm-security`).
struct Archive {
    base: String,
    release: String,
}

/// The archives of Debian itself, not those of third parties.
fn archives() -> Result<Vec<Archive>> {
    let known = || -> Result<Vec<Archive>> {
        let targets = output(&mut command(
            "apt-get",
            &[
                "indextargets",
                "--format",
                "$(ORIGIN)|$(COMPONENT)|$(REPO_URI)|$(RELEASE)",
                "Created-By: Packages",
            ],
        ))?;
        let mut archives: Vec<Archive> = Vec::new();
        for line in targets.lines() {
            let fields: Vec<&str> = line.split('|').collect();
            if let ["Debian", "main", base, release] = fields[..]
                && !archives
                    .iter()
                    .any(|a| a.base == base && a.release == release)
            {
                archives.push(Archive {
                    base: base.to_owned(),
                    release: release.to_owned(),
                });
            }
        }
        Ok(archives)
    };
    let mut found = known()?;
    if found.is_empty() {
        // A fresh machine has no lists yet, and without them apt does not know who published what.
        update()?;
        found = known()?;
    }
    if found.is_empty() {
        return Err("apt knows no Debian archive; is this Debian? (`apt-get indextargets`)".into());
    }
    Ok(found)
}

/// Lines of a sources.list for this very release, with its updates and security archives.
pub(crate) fn sources() -> Result<String> {
    let lines: Vec<String> = archives()?
        .iter()
        .map(|a| format!("deb [signed-by={KEYRING}] {} {} main", a.base, a.release))
        .collect();
    Ok(lines.join("\n") + "\n")
}

/// Downloads one package of another Debian release from the same mirror, checked against Debian's keys, without changing
/// what this machine's apt is set up with. Returns the package file, in `scratch`.
pub(crate) fn download(package: &str, release: &str, scratch: &Path) -> Result<PathBuf> {
    let base = archives()?
        .into_iter()
        .find(|a| !a.release.contains('-')) // the archive itself, not -updates or -security
        .ok_or("apt knows no Debian archive")?
        .base;
    for dir in ["lists/partial", "cache/archives/partial", "out"] {
        let dir = scratch.join(dir);
        std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    let sources = scratch.join("sources.list");
    std::fs::write(
        &sources,
        format!("deb [signed-by={KEYRING}] {base} {release} main\n"),
    )
    .map_err(|e| format!("{}: {e}", sources.display()))?;
    let apart = |arguments: &[&str]| {
        let mut apt = command("apt-get", &["-q"]);
        apt.arg("-o")
            .arg(format!("Dir::Etc::sourcelist={}", sources.display()))
            .args(["-o", "Dir::Etc::sourceparts=-"])
            .arg("-o")
            .arg(format!(
                "Dir::State::lists={}",
                scratch.join("lists").display()
            ))
            .arg("-o")
            .arg(format!("Dir::Cache={}", scratch.join("cache").display()))
            // The scratch directory may be closed to apt's own user.
            .args(["-o", "APT::Sandbox::User=root"])
            .args(arguments)
            .current_dir(scratch.join("out"));
        apt
    };
    output(&mut apart(&["update"]))?;
    output(&mut apart(&["download", package]))?;
    std::fs::read_dir(scratch.join("out"))
        .map_err(|e| format!("{}: {e}", scratch.display()))?
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .ok_or_else(|| format!("apt-get downloaded no package {package}"))
}

fn update() -> Result<()> {
    need_root("update package lists")?;
    run(&mut command("apt-get", &["update", "-q"]))
}
