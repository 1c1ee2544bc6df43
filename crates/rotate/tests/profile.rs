//! Profiles: what loads, and how a wrong one is refused.

use std::path::Path;

use keyroll_rotate::Profile;

fn refused(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stack.toml");
    std::fs::write(&path, text).unwrap();
    let error = Profile::load(path.to_str().unwrap(), &[])
        .unwrap_err()
        .to_string();
    error.replace(&format!("{}/", directory.path().display()), "")
}

#[test]
fn the_built_in_profile_describes_the_reference_deployment() {
    let profile = Profile::load("proxpanel", &[]).unwrap();
    assert_eq!(
        profile.env_file(),
        Path::new("/opt/proxpanel/.env.production")
    );
    assert_eq!(
        profile.compose.files,
        [Path::new(
            "/opt/proxpanel/infra/deploy/docker-compose.production.yml"
        )]
    );
    assert_eq!(
        profile.http.as_ref().unwrap().base_url,
        "https://my.votcloud.com"
    );
    assert_eq!(profile.paths.backups, Path::new("/opt/proxpanel-backups"));
    assert_eq!(profile.paths.summaries, Path::new("/root"));
    assert_eq!(profile.select(&["production".into()]).unwrap().len(), 4);
}

#[test]
fn a_profile_that_extends_says_only_what_differs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stack.toml");
    std::fs::write(&path, "extends = \"proxpanel\"\nroot = \"/srv/panel\"\n[http]\nbase_url = \"http://127.0.0.1:81\"\n").unwrap();
    let profile = Profile::load(
        path.to_str().unwrap(),
        &[
            "database.role={ value = \"x\" }".into(),
            "paths.state=/s".into(),
        ],
    )
    .unwrap();
    assert_eq!(profile.env_file(), Path::new("/srv/panel/.env.production"));
    assert_eq!(profile.http.as_ref().unwrap().health, "/api/health");
    assert_eq!(
        profile.database.unwrap().role,
        keyroll_rotate::Source::Value("x".into())
    );
    assert_eq!(profile.paths.state, Path::new("/s"));
}

#[test]
fn a_group_and_its_member_select_each_secret_once() {
    let profile = Profile::load("proxpanel", &[]).unwrap();
    assert_eq!(
        profile
            .select(&["JWT_SECRET".into(), "production".into()])
            .unwrap()
            .len(),
        4
    );
    assert_eq!(profile.select(&["NOPE".into()]).unwrap_err(), "NOPE");
}

#[test]
fn wrong_profiles_are_refused_with_file_line_and_what_was_expected() {
    let base = "extends = \"proxpanel\"\n";
    let cases = [
        "name = ",
        "extends = \"nothing\"",
        &format!("{base}[http]\nbase_ulr = \"x\""),
        &format!("{base}[database]\nport = \"many\""),
        &format!("{base}[http]\nbase_url = \"ftp://x\""),
        &format!("{base}[groups]\nmine = [\n  \"JWT_SECRET\",\n  \"JWT_SECRT\",\n]"),
        &format!("{base}[secrets.API]\nkind = \"enviroment\""),
        &format!("{base}[secrets.API]\nkind = \"environment\"\nformat = {{ length = 8 }}"),
        "name = \"x\"\nroot = \"/x\"",
    ];
    let answers: Vec<String> = cases.iter().map(|c| refused(c)).collect();
    insta::assert_snapshot!(answers.join("\n---\n"));
}

#[test]
fn a_wrong_flag_is_named() {
    let error = Profile::load("proxpanel", &["http.pages=7".into()])
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("--set http.pages=7: "), "{error}");
    assert!(
        Profile::load("proxpanel", &["nonsense".into()])
            .unwrap_err()
            .to_string()
            .contains("dotted.key=value")
    );
}
