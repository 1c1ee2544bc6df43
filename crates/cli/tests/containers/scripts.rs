//! The commands of the runbook, as they are typed, and where the values that are typed in them can be read.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::canary::{self, Needles, walk};
use crate::common::{Bench, DONE, REFUSED, USAGE};
use crate::webhooks::{Endpoint, Shop};
use keyroll_secret::Secret;
use keyroll_testkit::{StackOptions, containers_wanted};

const HASH: &str = "payments.flutterwave.webhookHash";
const PAYSTACK: &str = "payments.paystack.secretKey";
const PROXMOX: &str = "proxmox.tokenSecret";

/// The runbook's two scripts, in a directory of the stack.
struct Scripts(PathBuf);

impl Scripts {
    async fn install(shop: &Shop<'_>, bench: &Bench) -> Self {
        let directory = bench.stack.root().join("infra/deploy");
        let run = bench.run(&shop.with(&["install-scripts"], &[])).await;
        assert_eq!(run.code, DONE, "{run:?}");
        Self(directory)
    }

    /// Runs one as the runbook says; its exit code, and all that it said. As sudo does, a shell stays above it until it ends, with
    /// everything in its arguments that was typed: the script itself is gone in milliseconds, too soon for whoever looks.
    fn run(&self, name: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let done = Command::new("bash")
            .args(["-c", r#"bash "$@"; exit $?"#, "sudo"])
            .arg(self.0.join(name))
            .args(arguments)
            .output()
            .unwrap();
        let text = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(text).unwrap())
    }

    fn integration(&self, arguments: &[&str]) -> (Option<i32>, String) {
        self.run("rotate-integration-secrets.sh", arguments)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_runbook_rotate_and_finalize_and_show_their_values_to_nobody_else() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new()
        .postgres_arguments("-c log_statement=all")
        .postgres_arguments("-c log_min_duration_statement=0");
    let bench = Bench::start(options).await;
    let shop = Shop::open(&bench).await;
    let values = [
        (
            "PROXMOX_TOKEN_SECRET",
            PROXMOX,
            "b6c1f0de-8a5b-4c2d-9e3f-0123456789ab",
        ),
        ("PAYSTACK_SECRET", PAYSTACK, &Shop::key(2)),
        (
            "FLUTTERWAVE_WEBHOOK_HASH",
            HASH,
            "a-hash-canary/of+the-dashboard",
        ),
    ]
    .map(|(name, row, value)| (name, row, value.to_owned()));
    let [token, key, hash] = values.clone().map(|(_, _, value)| value);
    for (row, value) in [
        (PROXMOX, "11111111-8a5b-4c2d-9e3f-0123456789ab"),
        (PAYSTACK, &Shop::key(1)),
        (HASH, "the-first-hash-of-all"),
    ] {
        shop.has(row, value).await;
    }
    // It was given another value in the dashboard, so the old one is dead.
    {
        let mut known = shop.providers.known();
        let proxmox = &mut known.proxmox;
        proxmox.add_token("proxpanel@pve", "panel", &token, "PVEVMAdmin");
    }
    let scripts = Scripts::install(&shop, &bench).await;

    let mut needles = Needles::default();
    for (name, _, value) in &values {
        needles.add(name, &Secret::new(value));
    }
    let watcher = canary::Watcher::start(bench.stack.env_path(), bench.home("tmp"));
    let (code, said) = scripts.integration(&[
        "--proxmox-token-secret",
        &token,
        "--paystack-secret",
        &key,
        "--flutterwave-webhook-hash",
        &hash,
    ]);
    let seen = watcher.stop();
    assert_eq!(code, DONE, "{}", said.len());
    needles.absent("what the script said", said.as_bytes());
    assert!(
        said.contains("other users of this host could have read it"),
        "{said}"
    );
    // The script itself, as it was typed, and the shell that it writes into the pipe with.
    let shown = seen
        .arguments()
        .filter(|list| !needles.found(list).is_empty());
    for list in shown {
        let text = String::from_utf8_lossy(list);
        assert!(
            text.starts_with("bash\0") && text.contains("rotate-integration-secrets.sh"),
            "a command's arguments hold a value"
        );
    }
    assert!(
        seen.arguments().any(|list| !needles.found(list).is_empty()),
        "the watcher was blind"
    );
    for (name, row, value) in &values {
        assert!(shop.row(row).await.as_deref() == Some(value), "{name}");
    }
    assert_eq!(
        shop.sends(Endpoint::Flutterwave, "the-first-hash-of-all")
            .await,
        200
    );

    let (code, said) = scripts.integration(&["--finalize-payment-webhook-grace"]);
    assert_eq!(code, DONE, "{said}");
    assert_eq!(
        shop.sends(Endpoint::Flutterwave, "the-first-hash-of-all")
            .await,
        401
    );
    assert_eq!(shop.sends(Endpoint::Flutterwave, &hash).await, 200);
    let (code, said) = scripts.run("rotate-production-secrets.sh", &[]);
    assert_eq!(code, DONE, "{said}");

    let mut files = 0;
    walk(&bench.home("."), &mut |path, metadata| {
        if metadata.is_file() {
            files += 1;
            needles.absent(&path.display().to_string(), &fs::read(path).unwrap());
        }
    });
    assert!(files > 5, "nothing was searched");
    for service in ["postgres", "api", "worker"] {
        let text = bench.stack.logs(service).await.unwrap();
        // What this test has entered by itself is another value.
        needles.absent(&format!("the log of {service}"), text.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_does_not_understand_or_is_refused_changes_nothing_and_an_older_one_is_kept()
{
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let shop = Shop::open(&bench).await;
    let [old, new] = [1, 2].map(Shop::key);
    shop.has(PAYSTACK, &old).await;
    let directory = bench.stack.root().join("infra/deploy");
    fs::create_dir_all(&directory).unwrap();
    let script = directory.join("rotate-integration-secrets.sh");
    fs::write(&script, "#!/bin/sh\necho by hand\n").unwrap();
    let scripts = Scripts::install(&shop, &bench).await;
    let kept = script.with_extension("sh.before-keyroll");
    assert!(fs::read_to_string(kept).unwrap().contains("by hand"));

    for arguments in [
        &["--paystack-secert", &new][..],
        &["--paystack-secret"],
        &[],
        &["--paystack-secret", &new, "--frobnicate"],
    ] {
        let (code, said) = scripts.integration(arguments);
        assert_eq!(code, USAGE, "{said}");
        assert!(
            said.contains("nothing was changed") && !said.contains(&new),
            "{}",
            said.len()
        );
    }
    let dead = format!("sk_live_{}", "9".repeat(40));
    let (code, said) = scripts.integration(&["--paystack-secret", &dead]);
    assert_eq!(code, REFUSED, "{}", said.len());
    assert!(said.contains("refuses the new value"), "{said}");
    assert_eq!(shop.row(PAYSTACK).await, Some(old));

    // From a file, whose name is all that is shown.
    let file = bench.home("new-key");
    fs::write(&file, format!("{new}\n")).unwrap();
    let (code, said) = scripts.integration(&["--paystack-secret-file", file.to_str().unwrap()]);
    assert_eq!(code, DONE, "{said}");
    assert!(!said.contains("could have read it"), "{said}");
    assert_eq!(shop.row(PAYSTACK).await, Some(new));
}
