//! What a token can do.

use std::collections::BTreeMap;

use serde_json::Value;

/// Privileges by path, each with whether it holds below the path too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions(BTreeMap<String, BTreeMap<String, bool>>);

impl Permissions {
    /// From `GET /access/permissions`.
    pub(super) fn read(data: &Value) -> Option<Self> {
        let flag = |v: &Value| v.as_bool().or(v.as_u64().map(|n| n != 0));
        let mut all = BTreeMap::new();
        for (path, privileges) in data.as_object()? {
            let mut own = BTreeMap::new();
            for (name, propagates) in privileges.as_object()? {
                own.insert(name.clone(), flag(propagates)?);
            }
            all.insert(path.clone(), own);
        }
        Some(Self(all))
    }

    /// What `other` has and this has not, as `path: privilege`. Empty where this can do all that `other` can.
    pub fn lacking(&self, other: &Self) -> Vec<String> {
        let mut lacking = vec![];
        for (path, privileges) in &other.0 {
            for (name, propagates) in privileges {
                let own = self.0.get(path).and_then(|p| p.get(name));
                match own {
                    None => lacking.push(format!("{path}: {name}")),
                    Some(false) if *propagates => {
                        lacking.push(format!("{path}: {name} below it"));
                    }
                    Some(_) => {}
                }
            }
        }
        lacking
    }

    /// Whether nothing is allowed anywhere.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeMap::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Permissions {
        Permissions::read(&serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn what_is_lacking_is_named_by_path_and_by_reach() {
        let old = of(r#"{"/": {"VM.Audit": 1}, "/vms/100": {"VM.PowerMgmt": 0, "VM.Audit": 1}}"#);
        let new = of(r#"{"/": {"VM.Audit": 0}, "/vms/100": {"VM.Audit": 1, "VM.Allocate": 1}}"#);
        assert_eq!(
            new.lacking(&old),
            ["/: VM.Audit below it", "/vms/100: VM.PowerMgmt"]
        );
        assert_eq!(old.lacking(&old), [""; 0]);
        assert_eq!(old.lacking(&Permissions::default()), [""; 0]);
        assert!(Permissions::default().is_empty() && !old.is_empty());
    }
}
