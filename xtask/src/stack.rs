//! `cargo xtask up` and `down`: one stack for work by hand.

use keyroll_testkit::{Stack, StackOptions, remove_project, sweep};

use crate::Result;
use crate::shell::{chain, sandbox_dir};
use crate::{images, setup};

const PROJECT: &str = "keyroll-sandbox";

/// Starts it. Says where it is.
pub(crate) fn up() -> Result<()> {
    let root = sandbox_dir()?.join("panel");
    if root.exists() {
        return Err(format!(
            "{} is there already; `cargo xtask down` takes the stack away",
            root.display()
        ));
    }
    setup::run()?;
    images::run()?;
    let started = runtime()?.block_on(async {
        let stack =
            Stack::start(StackOptions::new().health_every_second().at(&root, PROJECT)).await?;
        let said = format!(
            "panel     {}\nroot      {}\nenv file  {}\ncompose   docker compose {}\n",
            stack.base_url(),
            stack.root().display(),
            stack.env_path().display(),
            stack.compose_arguments().join(" "),
        );
        stack.leave();
        Ok(said)
    });
    let said = started.map_err(|e: keyroll_testkit::TestkitError| chain(&e))?;
    print!("{said}");
    Ok(())
}

/// Takes it down, with its data.
pub(crate) fn down() -> Result<()> {
    let root = sandbox_dir()?.join("panel");
    if !remove_project(PROJECT) {
        return Err(format!(
            "not everything of {PROJECT} could be removed: `docker ps -a` shows what is left"
        ));
    }
    if root.exists() {
        std::fs::remove_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))?;
    }
    for project in sweep().map_err(|e| chain(&e))? {
        println!("down: removed {project}, which a killed test left behind");
    }
    Ok(())
}

/// An async runtime for the test kit.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new().map_err(|e| format!("cannot start the async runtime: {e}"))
}
