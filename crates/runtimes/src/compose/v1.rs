//! What `docker-compose` 1 prints, in the form that version 2 prints.
//!
//! Version 1 knows YAML only, and writes it by the rules of YAML 1.1. Its plain scalars must not be read by the rules of 1.2,
//! where a value such as `1e3` is a number: so the parser's events are taken, and every scalar keeps its text.

use keyroll_secret::Secret;
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

use super::resolved::wipe;

/// The output of `docker-compose config` as the JSON that `docker compose config --format json` would print, as far as
/// [`super::Resolved`] reads it. `None` when it is not such a configuration.
pub(super) fn to_json(yaml: &[u8], project: &str) -> Option<Secret> {
    let mut root = parse(std::str::from_utf8(yaml).ok()?)?;
    normalise(&mut root, project)?;
    let text = serde_json::to_string(&root).ok().map(Secret::new);
    wipe(root);
    text
}

/// A collection that is being read.
enum Open {
    List(usize, Vec<Value>),
    Map(usize, Map<String, Value>, Option<String>),
}

fn parse(yaml: &str) -> Option<Value> {
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, Value> = HashMap::new();
    for event in Parser::new_from_str(yaml) {
        let (anchor, value) = match event.ok()?.0 {
            Event::SequenceStart(anchor, _) => {
                open.push(Open::List(anchor, Vec::new()));
                continue;
            }
            Event::MappingStart(anchor, _) => {
                open.push(Open::Map(anchor, Map::new(), None));
                continue;
            }
            Event::SequenceEnd => match open.pop()? {
                Open::List(anchor, items) => (anchor, Value::Array(items)),
                Open::Map(..) => return None,
            },
            Event::MappingEnd => match open.pop()? {
                Open::Map(anchor, items, None) => (anchor, Value::Object(items)),
                _ => return None,
            },
            Event::Scalar(text, style, anchor, _) => {
                // A key is its text, whatever it looks like.
                if let Some(Open::Map(_, _, key @ None)) = open.last_mut() {
                    *key = Some(text.into_owned());
                    continue;
                }
                (anchor, scalar(&text, style))
            }
            Event::Alias(anchor) => (0, anchors.get(&anchor)?.clone()),
            _ => continue,
        };
        if anchor > 0 {
            anchors.insert(anchor, value.clone());
        }
        match open.last_mut() {
            None => return Some(value),
            Some(Open::List(_, items)) => items.push(value),
            Some(Open::Map(_, items, key)) => {
                items.insert(key.take()?, value);
            }
        }
    }
    None
}

/// Only what keeps its text when it is printed again is anything else than text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if !matches!(style, ScalarStyle::Plain) {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        number => match number.parse::<i64>() {
            Ok(n) if n.to_string() == number => json!(n),
            _ => Value::String(number.to_owned()),
        },
    }
}

/// Fills in what version 1 leaves to its own rules: names of images, volumes and networks; the long form of mounts.
fn normalise(root: &mut Value, project: &str) -> Option<()> {
    for kind in ["volumes", "networks"] {
        let Some(all) = root.get_mut(kind).and_then(Value::as_object_mut) else {
            continue;
        };
        for (key, about) in all.iter_mut() {
            if about.is_null() {
                *about = json!({});
            }
            if about.get("name").is_none() {
                about["name"] = json!(format!("{project}_{key}"));
            }
            // `external: {name: …}` is an older form.
            if about["external"].is_object() {
                about["external"] = json!(true);
            }
        }
    }
    for (name, service) in root.get_mut("services")?.as_object_mut()? {
        let service = service.as_object_mut()?;
        if service.get("image").is_none() {
            service.insert("image".into(), json!(format!("{project}_{name}")));
        }
        if let Some(mounts) = service.get_mut("volumes").and_then(Value::as_array_mut) {
            for mount in mounts.iter_mut() {
                if let Some(long) = mount.as_str().and_then(named_volume) {
                    *mount = long;
                }
            }
        }
        if let Some(Value::Array(names)) = service.get("networks") {
            let keys = names.iter().filter_map(Value::as_str);
            let long = keys.map(|key| (key.to_owned(), Value::Null)).collect();
            service.insert("networks".into(), Value::Object(long));
        }
    }
    Some(())
}

/// `data:/data:rw`, whose first part is no path.
fn named_volume(short: &str) -> Option<Value> {
    let (source, rest) = short.split_once(':')?;
    let path = source.starts_with(['/', '.', '~']);
    let target = rest.split(':').next()?;
    (!path).then(|| json!({"type": "volume", "source": source, "target": target}))
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "services:\n  api:\n    command:\n    - sh\n    - 'exec x # $$HOME'\n    environment:\n      A: 1e3\n      B: 'true'\n      \"N\": 5\n      OCTAL: 0o17\n      PW: p@ss$$$$w\n      LONG: \"a\\\n        \\ b\"\n      EMPTY: ''\n      UNSET: null\n    build:\n      context: /srv\n    volumes:\n    - data:/data:rw\n    - /host:/x:ro\n    depends_on: &id001\n      db:\n        condition: service_started\n  db:\n    image: postgres:15\n    depends_on: *id001\nversion: '3.8'\nvolumes:\n  data: {}\n  kept:\n    external: true\n    name: kept\n";

    fn read() -> Value {
        serde_json::from_str(to_json(YAML.as_bytes(), "p").unwrap().expose()).unwrap()
    }

    #[test]
    fn every_scalar_keeps_its_text() {
        let env = &read()["services"]["api"]["environment"];
        assert_eq!(env["A"], "1e3", "no number");
        assert_eq!(env["B"], "true", "quoted, so no truth value");
        assert_eq!(env["N"], 5);
        assert_eq!(env["OCTAL"], "0o17");
        assert_eq!(
            env["PW"], "p@ss$$$$w",
            "the dollars are halved later, as for version 2"
        );
        assert_eq!(env["LONG"], "a b");
        assert_eq!(env["EMPTY"], "");
        assert!(env["UNSET"].is_null());
    }

    #[test]
    fn what_version_1_leaves_out_is_filled_in() {
        let root = read();
        assert_eq!(root["services"]["api"]["image"], "p_api");
        assert_eq!(root["services"]["api"]["volumes"][0]["source"], "data");
        assert_eq!(root["services"]["api"]["volumes"][1], "/host:/x:ro");
        assert_eq!(root["volumes"]["data"]["name"], "p_data");
        assert_eq!(root["volumes"]["kept"]["external"], true);
        let alias = &root["services"]["db"]["depends_on"]["db"]["condition"];
        assert_eq!(alias, "service_started");
    }

    #[test]
    fn what_is_no_configuration_is_not_read() {
        for text in [
            "",
            "just text",
            "- a\n- b\n",
            "services: [",
            "version: '3'\n",
        ] {
            assert!(to_json(text.as_bytes(), "p").is_none(), "{text}");
        }
    }
}
