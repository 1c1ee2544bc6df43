//! Values made from a secret: which are found, how they are rewritten, and what is left alone.

use keyroll_envfile::{Derived, Dialect, Doubt, Doubtful, EnvFile, How, Readers, Scope};
use keyroll_secret::Secret;

/// Distinctive, and with characters that a URL must encode.
const OLD: &str = "p@ss/W0rd#9";
const NEW: &str = "fresh-Value_42";

fn file(text: &str) -> EnvFile {
    // A hash in an unquoted value is read differently by Node's dotenv; these tests are not about that.
    EnvFile::parse_for(
        text.as_bytes(),
        Readers::only(Dialect::ComposeGo).and(Dialect::PythonDotenv),
    )
    .unwrap()
}

fn text(file: &EnvFile) -> &str {
    std::str::from_utf8(file.as_bytes()).unwrap()
}

fn url(scheme: &str) -> How {
    How::Url {
        scheme: scheme.into(),
    }
}

#[test]
fn every_form_that_is_understood_is_rewritten_in_its_own_encoding() {
    for (before, after, how) in [
        ("K='p@ss/W0rd#9'", "K='fresh-Value_42'", How::Copy),
        ("K=p%40ss%2FW0rd%239", "K=fresh-Value_42", How::EncodedCopy),
        ("K=p%40ss%2fW0rd%239", "K=fresh-Value_42", How::EncodedCopy),
        (
            "K=postgresql://u:p%40ss%2FW0rd%239@db:5432/x?schema=public # c",
            "K=postgresql://u:fresh-Value_42@db:5432/x?schema=public # c",
            url("postgresql"),
        ),
        (
            // Only what must be encoded is; lower-case hex.
            "K=\"postgresql+asyncpg://u:p%40ss%2fW0rd%239@db/x\"",
            "K=\"postgresql+asyncpg://u:fresh-Value_42@db/x\"",
            url("postgresql+asyncpg"),
        ),
        (
            "K=redis://:p%40ss%2FW0rd%239@r:6379/0",
            "K=redis://:fresh-Value_42@r:6379/0",
            url("redis"),
        ),
        // Not encoded at all, as lenient clients take it.
        (
            "K=mysql://u:p@ss/W0rd#9@db/x",
            "K=mysql://u:fresh-Value_42@db/x",
            url("mysql"),
        ),
        (
            "K=https://p%40ss%2FW0rd%239@sentry.example/1",
            "K=https://fresh-Value_42@sentry.example/1",
            url("https"),
        ),
        (
            "K=jdbc:postgresql://db/x?user=u&password=p%40ss%2FW0rd%239&ssl=true",
            "K=jdbc:postgresql://db/x?user=u&password=fresh-Value_42&ssl=true",
            How::UrlParameter,
        ),
        (
            "K=host=db user=u password=p@ss/W0rd#9 dbname=x",
            "K=host=db user=u password=fresh-Value_42 dbname=x",
            How::Parameter,
        ),
        (
            "K=\"host=db password = 'p@ss/W0rd#9' dbname=x\"",
            "K=\"host=db password = 'fresh-Value_42' dbname=x\"",
            How::Parameter,
        ),
        (
            "K=Server=db;User Id=u;Password=p@ss/W0rd#9;Encrypt=True",
            "K=Server=db;User Id=u;Password=fresh-Value_42;Encrypt=True",
            How::Parameter,
        ),
        (
            "K=Server=db;Pwd=p@ss/W0rd#9",
            "K=Server=db;Pwd=fresh-Value_42",
            How::Parameter,
        ),
        (
            "K=r:6379,password=p@ss/W0rd#9,ssl=False",
            "K=r:6379,password=fresh-Value_42,ssl=False",
            How::Parameter,
        ),
        (
            "K=DefaultEndpointsProtocol=https;AccountKey=p@ss/W0rd#9;Suffix=x",
            "K=DefaultEndpointsProtocol=https;AccountKey=fresh-Value_42;Suffix=x",
            How::Parameter,
        ),
        // Interpolated around it: only the password is touched.
        (
            "K=postgres://${DB_USER}:p%40ss%2FW0rd%239@${DB_HOST:-db}/x",
            "K=postgres://${DB_USER}:fresh-Value_42@${DB_HOST:-db}/x",
            url("postgres"),
        ),
    ] {
        let before = format!("A=1\n{before}\nZ=2");
        let mut edited = file(&before);
        let (old, new) = (Secret::new(OLD), Secret::new(NEW));
        let planned = edited.find_embedded(&old, &Scope::default());
        assert_eq!(text(&edited), before, "a search changes nothing");
        let found = edited.replace_embedded(&old, &new, &Scope::default());
        assert_eq!(found, planned);
        assert_eq!(found.unknown, [], "{before}");
        assert_eq!(
            found.derived,
            [Derived {
                key: "K".into(),
                line: 2,
                how: vec![how]
            }],
            "{before}"
        );
        assert_eq!(text(&edited), format!("A=1\n{after}\nZ=2"));
    }
}

#[test]
fn a_new_value_is_percent_encoded_in_urls_and_raw_in_copies() {
    let mut edited = file("URL=x://u:oldPassword123@h/db\nCOPY='oldPassword123'\n");
    edited.replace_embedded(
        &Secret::new("oldPassword123"),
        &Secret::new("n@w:/1"),
        &Scope::default(),
    );
    assert_eq!(
        text(&edited),
        "URL=x://u:n%40w%3A%2F1@h/db\nCOPY='n@w:/1'\n"
    );
}

#[test]
fn several_urls_in_one_value_are_all_rewritten() {
    let mut edited = file("K=amqp://u:oldPassword123@a,amqp://u:oldPassword123@b/x\n");
    let found = edited.replace_embedded(
        &Secret::new("oldPassword123"),
        &Secret::new(NEW),
        &Scope::default(),
    );
    assert_eq!(found.derived[0].how, [url("amqp"), url("amqp")]);
    assert_eq!(
        text(&edited),
        "K=amqp://u:fresh-Value_42@a,amqp://u:fresh-Value_42@b/x\n"
    );
}

#[test]
fn what_embeds_the_secret_in_another_way_is_unknown_and_left_alone() {
    for before in [
        "K=u:oldPassword123@tcp(db:3306)/x",
        "K='{\"db\":{\"pw\":\"oldPassword123\"}}'",
        "K=prefix-oldPassword123-suffix",
        "K=xoldPassword123x",
        "K=x://u:oldPassword123@h/oldPassword123",
        "K=x://u:${PW:-oldPassword123}@h",
        "K=host=db password='oldPassword123 dbname=x",
    ] {
        let mut edited = file(before);
        let found = edited.replace_embedded(
            &Secret::new("oldPassword123"),
            &Secret::new(NEW),
            &Scope::default(),
        );
        assert_eq!(
            found.unknown,
            [Doubtful {
                key: "K".into(),
                line: 1,
                doubt: Doubt::NotUnderstood
            }],
            "{before}"
        );
        assert_eq!(text(&edited), before);
    }
}

#[test]
fn other_encodings_of_the_secret_than_expected_are_unknown_not_missed() {
    // Percent-encoded more than it had to be, outside a URL's password.
    let found =
        file("K=x-%70%40ss%2FW0rd%239-y\n").find_embedded(&Secret::new(OLD), &Scope::default());
    assert_eq!(found.unknown.len(), 1);
}

#[test]
fn a_weak_value_is_found_where_the_place_says_that_it_is_a_password() {
    let mut edited = file(
        "POSTGRES_USER=postgres\nPOSTGRES_DB=postgres\nPOSTGRES_PASSWORD=postgres\nPGPASSWORD=postgres\n\
         DATABASE_URL=postgres://postgres:postgres@postgres:5432/postgres\nIMAGE=postgres:15\nDSN=user=postgres password=postgres\n",
    );
    let scope = Scope {
        own: &["POSTGRES_PASSWORD"],
        derived: &["PGPASSWORD"],
    };
    let found = edited.replace_embedded(&Secret::new("postgres"), &Secret::new(NEW), &scope);
    let keys: Vec<&str> = found.derived.iter().map(|d| d.key.as_str()).collect();
    assert_eq!(keys, ["PGPASSWORD", "DATABASE_URL", "DSN"]);
    assert_eq!(found.coincidences, ["POSTGRES_USER", "POSTGRES_DB"]);
    assert_eq!(found.unknown, []);
    assert_eq!(
        text(&edited),
        "POSTGRES_USER=postgres\nPOSTGRES_DB=postgres\nPOSTGRES_PASSWORD=postgres\nPGPASSWORD=fresh-Value_42\n\
         DATABASE_URL=postgres://postgres:fresh-Value_42@postgres:5432/postgres\nIMAGE=postgres:15\nDSN=user=postgres password=fresh-Value_42\n"
    );
}

#[test]
fn a_weak_copy_under_a_secrets_name_is_refused_until_the_profile_says_what_it_is() {
    let old = Secret::new("changeme");
    let before = "DB_PASSWORD=changeme\nREDIS_PASSWORD=changeme\n";
    let found = file(before).find_embedded(
        &old,
        &Scope {
            own: &["DB_PASSWORD"],
            derived: &[],
        },
    );
    assert_eq!(
        found.unknown,
        [Doubtful {
            key: "REDIS_PASSWORD".into(),
            line: 2,
            doubt: Doubt::Common
        }]
    );
    let told = Scope {
        own: &["DB_PASSWORD", "REDIS_PASSWORD"],
        derived: &[],
    };
    assert_eq!(file(before).find_embedded(&old, &told).unknown, []);
}

#[test]
fn a_short_value_is_never_found_inside_other_words() {
    for old in ["a", "db", "admin", "secret", "prod123"] {
        let text = format!(
            "X_TOKEN={old}istrator\nURL=http://{old}:x@{old}.example/{old}\nS_KEY=x-{old}-y\n"
        );
        let found = file(&text).find_embedded(&Secret::new(old), &Scope::default());
        assert_eq!((found.derived.len(), found.unknown.len()), (0, 0), "{old}");
    }
}

#[test]
fn a_weak_value_of_eight_characters_counts_as_a_word_under_a_secrets_name_alone() {
    let old = Secret::new("changeme");
    for (line, unknown) in [
        ("APP_CREDENTIALS=user:changeme", 1),
        ("APP_CREDENTIALS=changemenow", 0),
        ("MOTTO=please changeme soon", 0),
    ] {
        assert_eq!(
            file(line)
                .find_embedded(&old, &Scope::default())
                .unknown
                .len(),
            unknown,
            "{line}"
        );
    }
}

#[test]
fn a_derived_key_that_is_defined_twice_or_read_differently_is_unknown() {
    let old = Secret::new("oldPassword123");
    let twice =
        file("K=oldPassword123\nK=x://u:oldPassword123@h\n").find_embedded(&old, &Scope::default());
    assert_eq!(
        twice.unknown,
        [Doubtful {
            key: "K".into(),
            line: 1,
            doubt: Doubt::Duplicate
        }]
    );
    let differs = EnvFile::parse(b"K=x://u:oldPassword123@h/#frag\n")
        .unwrap()
        .find_embedded(&old, &Scope::default());
    assert_eq!(
        differs.derived.len(),
        1,
        "Node stops at the hash, and both see the password rewritten"
    );
    let lost = EnvFile::parse(b"K=x://h/#u://u:oldPassword123@h\n")
        .unwrap()
        .find_embedded(&old, &Scope::default());
    assert_eq!(
        lost.unknown,
        [Doubtful {
            key: "K".into(),
            line: 1,
            doubt: Doubt::CannotCarry(Dialect::NodeDotenv)
        }]
    );
}

#[test]
fn a_new_value_that_the_place_cannot_carry_is_unknown() {
    let mut edited = file("K=host=db password=oldPassword123\n");
    let found = edited.replace_embedded(
        &Secret::new("oldPassword123"),
        &Secret::new("with space"),
        &Scope::default(),
    );
    assert_eq!(found.unknown[0].doubt, Doubt::NotUnderstood);
    assert_eq!(text(&edited), "K=host=db password=oldPassword123\n");
}

#[test]
fn an_empty_old_value_is_found_nowhere() {
    let found = file("A=\nB=x://u:@h\n").find_embedded(&Secret::new(""), &Scope::default());
    assert_eq!(
        found.derived.len() + found.unknown.len() + found.coincidences.len(),
        0
    );
}

#[test]
fn values_with_references_are_no_copies_of_anything() {
    let found = file("A=${B}\nC=$D\n").find_embedded(&Secret::new("${B}"), &Scope::default());
    assert_eq!(found.derived, []);
}

#[test]
fn a_dollar_sign_beside_references_is_never_taken_for_part_of_a_value() {
    // The password in force there is `a$bcdef123456`: compose halves the dollar signs.
    let doubled = file("K=x://u:a$$bcdef123456@${HOST}\n");
    let found = doubled.find_embedded(&Secret::new("a$$bcdef123456"), &Scope::default());
    assert_eq!((found.derived.len(), found.unknown.len()), (0, 1));
    // The new value would become a reference.
    let mut edited = file("K=host=${HOST} password=oldPassword123\n");
    let found = edited.replace_embedded(
        &Secret::new("oldPassword123"),
        &Secret::new("new$HOME"),
        &Scope::default(),
    );
    assert_eq!((found.derived.len(), found.unknown.len()), (0, 1));
    assert_eq!(text(&edited), "K=host=${HOST} password=oldPassword123\n");
}

#[test]
fn a_user_name_that_equals_a_weak_password_is_no_credential() {
    let found = file("K=postgres://postgres@db/x\n")
        .find_embedded(&Secret::new("postgres"), &Scope::default());
    assert_eq!((found.derived.len(), found.unknown.len()), (0, 0));
}

#[test]
fn exchanging_old_and_new_takes_a_rewrite_back() {
    let before = "U='x://u:oldPassword123@h'\r\nC=oldPassword123\r\n";
    let mut edited = file(before);
    let (old, new) = (Secret::new("oldPassword123"), Secret::new(NEW));
    edited.replace_embedded(&old, &new, &Scope::default());
    assert_ne!(text(&edited), before);
    edited.replace_embedded(&new, &old, &Scope::default());
    assert_eq!(text(&edited), before);
}

#[test]
fn nothing_that_is_reported_holds_a_value() {
    let found = file("A=oldPassword123\nB=xoldPassword123x\nC=p://u:oldPassword123@h\n")
        .find_embedded(&Secret::new("oldPassword123"), &Scope::default());
    assert!(!format!("{found:?}").contains("oldPassword123"));
}
