//! Proxmox VE's access API: tokens, permissions, access control lists.
//!
//! What it takes and answers is that of the official description (`proxmox-access-api.json`, of Proxmox VE 9.1; the tests of `crates/providers`
//! compare), with the habits that the description does not tell: a refused token waits three seconds and gets an empty body, a
//! token is never its own user's "self", a missing token is a 500 with the reason in the status line.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};
use serde_json::Value;

mod calls;

pub use calls::TAKES;
pub(crate) use calls::routes;

/// The official description of the calls that are simulated (pve-access-control 9.1.3).
pub const DESCRIPTION: &str = include_str!("../../proxmox-access-api.json");

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Users with their groups.
    pub users: BTreeMap<String, BTreeSet<String>>,
    /// Tokens by user and id.
    pub tokens: BTreeMap<(String, String), Token>,
    /// The access control list.
    pub acl: BTreeSet<Acl>,
    /// How long a refused token waits for its answer.
    pub refusal_takes: Duration,
    /// Whether it is new enough to give a token another value in place (libpve-access-control 9.1.0).
    pub regenerates: bool,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its secret.
    pub value: String,
    /// Whether it has only what its own entries give it.
    pub privsep: bool,
    /// Seconds since 1970; 0 for never.
    pub expire: u64,
    /// For people.
    pub comment: Option<String>,
}

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acl {
    /// Where.
    pub path: String,
    /// A user, a group, or a token's full id.
    pub who: String,
    /// The role.
    pub role: String,
    /// Whether it holds below the path too.
    pub propagate: bool,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            users: BTreeMap::new(),
            tokens: BTreeMap::new(),
            acl: BTreeSet::new(),
            refusal_takes: Duration::from_secs(3),
            regenerates: true,
        }
    }
}

/// Some of the built-in roles.
const ROLES: [(&str, &[&str]); 5] = [
    (
        "Administrator",
        &[
            "Group.Allocate",
            "Permissions.Modify",
            "Realm.AllocateUser",
            "Sys.Audit",
            "User.Modify",
            "VM.Allocate",
            "VM.Audit",
            "VM.PowerMgmt",
        ],
    ),
    (
        "PVEUserAdmin",
        &["Group.Allocate", "Realm.AllocateUser", "User.Modify"],
    ),
    ("PVEAuditor", &["Sys.Audit", "VM.Audit"]),
    ("PVEVMAdmin", &["VM.Allocate", "VM.Audit", "VM.PowerMgmt"]),
    ("PermissionsAdmin", &["Permissions.Modify"]),
];

/// Who asks: a user's token.
#[derive(Debug, Clone)]
struct Caller {
    user: String,
    id: String,
    privsep: bool,
}

impl Caller {
    fn full(&self) -> String {
        format!("{}!{}", self.user, self.id)
    }
}

impl Cluster {
    /// A token with privilege separation that has, as its user does, this role everywhere.
    pub fn add_token(&mut self, user: &str, id: &str, value: &str, role: &str) {
        let token = Token {
            value: value.to_owned(),
            privsep: true,
            expire: 0,
            comment: None,
        };
        self.tokens.insert((user.to_owned(), id.to_owned()), token);
        for who in [user.to_owned(), format!("{user}!{id}")] {
            self.acl.insert(Acl {
                path: "/".into(),
                who,
                role: role.to_owned(),
                propagate: true,
            });
        }
    }

    fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (full, secret) = value.strip_prefix("PVEAPIToken=")?.split_once('=')?;
        let (user, id) = full.split_once('!')?;
        let token = self.tokens.get(&(user.to_owned(), id.to_owned()))?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        let alive = token.value == secret && (token.expire == 0 || token.expire > now);
        alive.then(|| Caller {
            user: user.to_owned(),
            id: id.to_owned(),
            privsep: token.privsep,
        })
    }

    /// What one of these has on a path. Entries further down replace those that are inherited.
    fn has(&self, who: &[&str], path: &str) -> BTreeMap<&'static str, bool> {
        let reaches = |acl: &&Acl| {
            let inherited = acl.path == "/" || path.starts_with(&format!("{}/", acl.path));
            who.contains(&acl.who.as_str()) && (acl.path == path || (acl.propagate && inherited))
        };
        let deepest = self.acl.iter().filter(reaches).map(|a| a.path.len()).max();
        let mut all = BTreeMap::new();
        for acl in self.acl.iter().filter(reaches) {
            if Some(acl.path.len()) == deepest
                && let Some((_, privileges)) = ROLES.iter().find(|(name, _)| *name == acl.role)
            {
                all.extend(privileges.iter().map(|p| (*p, acl.propagate)));
            }
        }
        all
    }

    fn privileges(&self, caller: &Caller, path: &str) -> BTreeMap<&'static str, bool> {
        let mut who: Vec<&str> = vec![&caller.user];
        let groups = self.users.get(&caller.user);
        who.extend(groups.into_iter().flatten().map(String::as_str));
        let mut all = self.has(&who, path);
        if caller.privsep {
            let own = self.has(&[&caller.full()], path);
            all.retain(|privilege, _| own.contains_key(privilege));
        }
        all
    }

    /// Whether the caller may manage the tokens of a user. A token is nobody's self.
    fn manages(&self, caller: &Caller, user: &str) -> bool {
        let groups = self.users.get(user).into_iter().flatten();
        let paths = groups.map(|g| format!("/access/groups/{g}"));
        paths
            .chain(["/access/groups".to_owned()])
            .any(|path| self.privileges(caller, &path).contains_key("User.Modify"))
            && caller.user != user
    }

    fn tree(&self, caller: &Caller) -> Value {
        let usual = [
            "/",
            "/access",
            "/access/groups",
            "/nodes",
            "/storage",
            "/vms",
        ];
        let mut paths: BTreeSet<&str> = usual.into_iter().collect();
        paths.extend(self.acl.iter().map(|a| a.path.as_str()));
        let mut tree = serde_json::Map::new();
        for path in paths {
            let privileges = self.privileges(caller, path);
            if !privileges.is_empty() {
                let flags = privileges.into_iter();
                let flags = flags.map(|(p, on)| (p.to_owned(), u8::from(on).into()));
                tree.insert(path.to_owned(), Value::Object(flags.collect()));
            }
        }
        Value::Object(tree)
    }
}
