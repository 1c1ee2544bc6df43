//! The simulated cluster against the official description of the API.

use std::collections::BTreeSet;

use keyroll_sandbox_providers::proxmox::{DESCRIPTION, TAKES};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{MANAGING, USER, api_at};

const TOKEN: &str = "/access/users/{userid}/token/{tokenid}";

fn described() -> Value {
    serde_json::from_str(DESCRIPTION).unwrap()
}

fn keys(object: &Value) -> BTreeSet<String> {
    object
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| k.clone())
        .collect()
}

#[test]
fn every_call_takes_the_parameters_that_are_described() {
    let described = described();
    for (method, path, takes) in TAKES {
        let parameters = &described[path][method]["parameters"];
        assert_eq!(parameters["additionalProperties"], 0, "{method} {path}");
        let mut taken: BTreeSet<String> = takes.iter().map(|t| (*t).to_owned()).collect();
        // Newer than the description (libpve-access-control 9.1.0).
        taken.remove("regenerate");
        let in_path = ["userid", "tokenid"].map(str::to_owned);
        taken.extend(
            in_path
                .into_iter()
                .filter(|p| path.contains(&format!("{{{p}}}"))),
        );
        assert_eq!(taken, keys(&parameters["properties"]), "{method} {path}");
    }
}

/// One request by hand, so that nothing of the client is between the server and the test.
async fn ask(url: &str, method: &str, path: &str, body: &str) -> Value {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} /api2/json{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: PVEAPIToken=keyroll@pve!rotate={MANAGING}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200"),
        "{method} {path}: {answer}"
    );
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn every_answer_has_the_fields_that_are_described_and_no_other() {
    let (_providers, url) = api_at().await;
    let described = described();
    for (method, path) in [
        ("GET", "/version"),
        ("GET", "/access/acl"),
        ("GET", "/access/users/{userid}/token"),
        ("POST", TOKEN),
        ("PUT", TOKEN),
        ("GET", TOKEN),
        ("DELETE", TOKEN),
    ] {
        let real = path
            .replace("{userid}", &USER.replace('@', "%40"))
            .replace("{tokenid}", "web-9");
        let body = match method {
            "POST" | "PUT" => "comment=a+comment&privsep=1",
            _ => "",
        };
        let answer = ask(&url, method, &real, body).await;
        let returns = &described[path][method]["returns"];
        let (answered, returns) = match returns["type"].as_str() {
            Some("array") => (&answer["data"][0], &returns["items"]),
            _ => (&answer["data"], returns),
        };
        let known = keys(&returns["properties"]);
        for (field, value) in answered.as_object().into_iter().flatten() {
            // A look at one token and an update answer with its id too.
            let extra = field == "tokenid" && path == TOKEN;
            assert!(
                extra || known.contains(field),
                "{method} {path}: {field} is not described: {value}"
            );
        }
        for required in known {
            let optional = returns["properties"][&required]["optional"] == 1;
            assert!(
                optional || answered.get(&required).is_some(),
                "{method} {path}: {required} is missing"
            );
        }
    }
}
