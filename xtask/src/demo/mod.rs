//! `cargo xtask demo`: a full rotation on a real stack, from a bare machine, seen with other eyes than keyroll's; then the runbook's
//! commands, on secrets that providers make.

mod integration;

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Instant;

use keyroll_secret::Secret;
use keyroll_testkit::{DbLogin, Door, Keyroll, Stack, StackOptions, TestkitError, Tokens};

use crate::Result;
use crate::bench::Prober;
use crate::shell::{self, built, cargo, chain};
use crate::{images, setup, stack};

const PAGE: &str = "/audit-logs";

/// Sets up, starts a stack, rotates it, shows what changed, and takes everything down again.
pub(crate) fn run() -> Result<()> {
    setup::run()?;
    images::run()?;
    shell::run(&mut cargo(&["build", "--quiet", "--package", "keyroll"]))?;
    stack::runtime()?.block_on(show())
}

async fn show() -> Result<()> {
    heading("A panel, its worker and its database start");
    let began = Instant::now();
    let stack = Stack::start(StackOptions::new().health_every_second())
        .await
        .map_err(|e| chain(&e))?;
    let stack = Arc::new(stack);
    println!("{} in {}", stack.base_url(), stack.root().display());
    let before = Before::take(&stack).await.map_err(|e| chain(&e))?;

    let mut keyroll = Keyroll::new(built("keyroll")).map_err(|e| chain(&e))?;
    for name in ["TERM", "NO_COLOR"] {
        if let Some(value) = std::env::var_os(name) {
            keyroll = keyroll.env(name, value);
        }
    }
    let run = |title: &str, arguments: &[&str]| -> Result<()> {
        heading(title);
        println!("$ keyroll {}", arguments.join(" "));
        let mut command = keyroll.command(arguments);
        let status = command
            .args(keyroll.stack_arguments(&stack))
            .status()
            .map_err(|e| format!("cannot run keyroll: {e}"))?;
        ended(status, arguments)
    };
    run("What a rotation would do", &["plan", "production"])?;
    let prober = Prober::start(&stack).await?;
    let rotated = run("The rotation", &["rotate", "production", "--yes"]);
    let outage = prober.stop().await;
    rotated?;
    println!(
        "\nA visitor who asked 200 times a second meanwhile found the panel away for {:.1} s.",
        outage.as_secs_f64()
    );
    run("The trail", &["audit", "list"])?;
    run("What it says of this rotation", &["audit", "show", "1"])?;
    run("Is the trail whole?", &["audit", "verify"])?;
    run("The versions in force", &["status"])?;

    heading("Seen from outside");
    let all_well = before.compare(&stack).await.map_err(|e| chain(&e))?;
    let all_well = integration::show(&stack, &keyroll).await? && all_well;
    heading("The stack is taken down");
    drop(stack);
    println!("{:.0} s in all", began.elapsed().as_secs_f64());
    if all_well {
        Ok(())
    } else {
        Err("not everything is as it should be after the rotation; see above".into())
    }
}

/// What was in force before, to be tried again afterwards.
struct Before {
    database: Secret,
    admin: Secret,
    tokens: Tokens,
}

impl Before {
    async fn take(stack: &Stack) -> std::result::Result<Self, TestkitError> {
        let admin = stack.env("ADMIN_PASSWORD")?;
        let email = stack.env("ADMIN_EMAIL")?;
        let login = stack.panel()?.login(email.expose(), &admin).await?;
        Ok(Self {
            database: stack.env("POSTGRES_PASSWORD")?,
            admin,
            tokens: login.tokens.ok_or_else(|| {
                TestkitError::Unexpected(format!("the first login answered {}", login.status))
            })?,
        })
    }

    /// Prints each check with its answer. True when all are as they should be.
    async fn compare(&self, stack: &Stack) -> std::result::Result<bool, TestkitError> {
        let panel = stack.panel()?;
        let email = stack.env("ADMIN_EMAIL")?;
        let new_admin = stack.env("ADMIN_PASSWORD")?;
        let new_database = stack.env("POSTGRES_PASSWORD")?;
        let old_login = panel.login(email.expose(), &self.admin).await?.status;
        let old_page = panel.page(PAGE, Some(&self.tokens.access)).await?;
        let old_refresh = panel.refresh(&self.tokens.refresh).await?.status;
        let new_login = panel.login(email.expose(), &new_admin).await?;
        let new_access = new_login.tokens.map(|tokens| tokens.access);
        let new_page = panel.page(PAGE, new_access.as_ref()).await?;
        let old_db = stack.db_login(&self.database, Door::Network).await;
        let new_db = stack.db_login(&new_database, Door::Network).await;
        let worker = stack.container("worker").await?.health;

        let mut all_well = true;
        let mut check = |what: &str, answer: String, well: bool| {
            println!("{} {what:<38} {answer}", if well { "ok " } else { "BAD" });
            all_well &= well;
        };
        let refused = DbLogin::Refused;
        check(
            "old database password",
            format!("{old_db:?}"),
            old_db == refused,
        );
        check(
            "new database password",
            format!("{new_db:?}"),
            new_db == DbLogin::Accepted,
        );
        check(
            "old admin password",
            old_login.to_string(),
            old_login == 401,
        );
        check(
            "new admin password",
            new_login.status.to_string(),
            new_login.status == 200,
        );
        check(
            "page with the old access token",
            old_page.to_string(),
            old_page == 401,
        );
        check(
            "page with the new access token",
            new_page.to_string(),
            new_page == 200,
        );
        check(
            "old refresh token",
            old_refresh.to_string(),
            old_refresh == 401,
        );
        check(
            "worker",
            worker.clone().unwrap_or_default(),
            worker.as_deref() == Some("healthy"),
        );
        Ok(all_well)
    }
}

fn ended(status: ExitStatus, arguments: &[&str]) -> Result<()> {
    if status.success() {
        Ok(())
    } else {
        Err(format!(
            "keyroll {} ended with {status}",
            arguments.join(" ")
        ))
    }
}

fn heading(title: &str) {
    println!("\n== {title}");
}
