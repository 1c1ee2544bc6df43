//! A Proxmox node beside a stack: a panel's token with rights, and another identity that manages tokens.
#![allow(
    dead_code,
    reason = "every test binary compiles this module and uses its own part"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use keyroll_sandbox_providers::Providers;
use keyroll_sandbox_providers::proxmox::{Acl, Cluster, Token};
use keyroll_testkit::Stack;

pub(crate) const SECRET: &str = "PROXMOX_TOKEN_SECRET";
pub(crate) const USER: &str = "proxpanel@pve";
const MANAGING: &str = "99999999-8a5b-4c2d-9e3f-0123456789ab";
const VALUE: &str = "11111111-8a5b-4c2d-9e3f-0123456789ab";
const ID_ROW: &str = "proxmox.tokenId";
const SECRET_ROW: &str = "proxmox.tokenSecret";

pub(crate) struct Node {
    pub(crate) providers: Providers,
    /// Says where the node is, and who manages its tokens.
    pub(crate) settings: Vec<String>,
}

impl Node {
    /// The panel's settings name its first token.
    pub(crate) async fn open(stack: &Stack, home: &Path) -> Self {
        let providers = Providers::new();
        let url = providers.serve().await.unwrap();
        let token = |value: &str, privsep| Token {
            value: value.to_owned(),
            privsep,
            expire: 0,
            comment: None,
        };
        let acl = |path: &str, who: &str, role: &str| Acl {
            path: path.into(),
            who: who.into(),
            role: role.into(),
            propagate: true,
        };
        let own = format!("{USER}!panel");
        providers.known().proxmox = Cluster {
            users: BTreeMap::from([
                (USER.into(), BTreeSet::from(["panels".into()])),
                ("keyroll@pve".into(), BTreeSet::new()),
            ]),
            tokens: BTreeMap::from([
                ((USER.into(), "panel".into()), token(VALUE, true)),
                (
                    ("keyroll@pve".into(), "rotator".into()),
                    token(MANAGING, false),
                ),
            ]),
            acl: BTreeSet::from([
                acl("/vms", USER, "PVEVMAdmin"),
                acl("/storage", USER, "PVEAuditor"),
                acl("/vms", &own, "PVEVMAdmin"),
                acl("/storage", &own, "PVEAuditor"),
                acl("/access/groups", "keyroll@pve", "PVEUserAdmin"),
                acl("/vms", "keyroll@pve", "PermissionsAdmin"),
                acl("/storage", "keyroll@pve", "PermissionsAdmin"),
                acl("/", "keyroll@pve", "PermissionsAdmin"),
            ]),
            refusal_takes: Duration::from_millis(20),
            regenerates: false,
        };
        let file = home.join("manager");
        fs::write(&file, format!("{MANAGING}\n")).unwrap();
        for (key, value) in [(ID_ROW, own.as_str()), (SECRET_ROW, VALUE)] {
            let sql =
                format!(r#"INSERT INTO "Setting" ("key", "value") VALUES ('{key}', '{value}')"#);
            stack.sql(&sql).await.unwrap();
        }
        let make = format!(
            "secrets.{SECRET}.make={{ id_setting = \"{ID_ROW}\", manager = \"keyroll@pve!rotator\", manager_file = \"{}\" }}",
            file.display()
        );
        let settings = vec![
            "--set".to_owned(),
            format!("secrets.{SECRET}.api.base_url={url}"),
            "--set".to_owned(),
            make,
        ];
        Self {
            providers,
            settings,
        }
    }

    pub(crate) fn with<'s>(&'s self, command: &[&'s str]) -> Vec<&'s str> {
        let settings = self.settings.iter().map(String::as_str);
        command.iter().copied().chain(settings).collect()
    }

    /// The panel's tokens, by their full ids.
    pub(crate) fn tokens(&self) -> BTreeSet<String> {
        let known = self.providers.known();
        let own = known.proxmox.tokens.keys().filter(|(user, _)| user == USER);
        own.map(|(user, id)| format!("{user}!{id}")).collect()
    }

    /// The rights of a token, path by path.
    pub(crate) fn rights(&self, full: &str) -> BTreeSet<(String, String, bool)> {
        let known = self.providers.known();
        let own = known.proxmox.acl.iter().filter(|acl| acl.who == full);
        own.map(|acl| (acl.path.clone(), acl.role.clone(), acl.propagate))
            .collect()
    }

    /// The panel's first token has this value now, given in the node's dashboard.
    pub(crate) fn gives(&self, value: &str) {
        let token = (USER.to_owned(), "panel".to_owned());
        let mut known = self.providers.known();
        let token = known.proxmox.tokens.get_mut(&token).unwrap();
        value.clone_into(&mut token.value);
    }

    /// The secret of the token that the panel uses.
    pub(crate) async fn secret_in_use(&self, stack: &Stack) -> String {
        let sql = format!(r#"SELECT "value" FROM "Setting" WHERE "key" = '{SECRET_ROW}'"#);
        stack.sql_value(&sql).await.unwrap()
    }

    /// The token that the panel uses: its full id. Its secret in the settings is the one that the node knows.
    pub(crate) async fn in_use(&self, stack: &Stack) -> String {
        let row = async |key: &str| {
            let sql = format!(r#"SELECT "value" FROM "Setting" WHERE "key" = '{key}'"#);
            stack.sql_value(&sql).await.unwrap()
        };
        let (full, value) = (row(ID_ROW).await, row(SECRET_ROW).await);
        let (user, id) = full.split_once('!').unwrap();
        let known = self.providers.known();
        let token = known.proxmox.tokens.get(&(user.to_owned(), id.to_owned()));
        let token = token.unwrap_or_else(|| panic!("the panel uses {full}, which is not there"));
        assert!(
            token.value == value,
            "the panel has another secret than {full}"
        );
        full
    }
}
