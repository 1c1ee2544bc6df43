//! `cargo xtask images`: what the sandbox runs, built from Debian packages because no image registry is needed for that.
//!
//! Each image carries the fingerprint of its recipe as a label; one whose recipe has not changed is left alone.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::apt::{self, Wanted};
use crate::shell::{
    self, built, cargo, command, fingerprint, found, output, output_with_input, root, sandbox_dir,
};

const LABEL: &str = "keyroll.recipe";
const BASE: &str = "keyroll-sandbox-base:latest";
const POSTGRES: &str = "keyroll-sandbox-postgres:15";
const PANEL: &str = "keyroll-sandbox-panel:1";
const NGINX: &str = "keyroll-sandbox-nginx:1";

/// The release whose glibc the panel binary meets and whose `postgresql` is 15.
const RELEASE: &str = "bookworm";

/// An image made of Debian packages and nothing else.
struct Bootstrap {
    image: &'static str,
    packages: &'static str,
    /// Shell lines that mmdebstrap runs when the packages are there; the tree is `$1`.
    hooks: &'static [&'static str],
    /// Lines of a Dockerfile, as `docker import` takes them.
    changes: &'static [&'static str],
}

const BASE_PACKAGES: Bootstrap = Bootstrap {
    image: BASE,
    packages: "postgresql-15,ca-certificates,curl,tini,openssl",
    hooks: &[],
    changes: &[],
};
/// The real server with the habits of the docker-library image: it stays in the foreground, and its logs are the
/// container's. Not on top of the base, which it needs nothing of.
const NGINX_PACKAGES: Bootstrap = Bootstrap {
    image: NGINX,
    packages: "nginx,curl",
    hooks: &[
        "rm \"$1/etc/nginx/sites-enabled/default\"",
        "ln -sf /dev/stdout \"$1/var/log/nginx/access.log\"",
        "ln -sf /dev/stderr \"$1/var/log/nginx/error.log\"",
    ],
    changes: &["CMD [\"nginx\", \"-g\", \"daemon off;\"]", "EXPOSE 443"],
};

/// Builds what is missing or has changed.
pub(crate) fn run() -> Result<()> {
    bootstrap(&BASE_PACKAGES)?;
    postgres()?;
    panel()?;
    bootstrap(&NGINX_PACKAGES)
}

fn bootstrap(wanted: &Bootstrap) -> Result<()> {
    let Bootstrap {
        image,
        packages,
        hooks,
        changes,
    } = *wanted;
    let texts = [RELEASE, packages].into_iter();
    let texts = texts
        .chain(hooks.iter().copied())
        .chain(changes.iter().copied());
    let recipe = fingerprint(texts.map(str::as_bytes));
    if recipe_of(image).as_ref() == Some(&recipe) {
        return Ok(());
    }
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !os.contains(&format!("VERSION_CODENAME={RELEASE}")) {
        return Err(format!(
            "the sandbox's images are made on Debian {RELEASE}, and this is another system: \
             its programs may not run there"
        ));
    }
    if found("mmdebstrap").is_none() {
        apt::install(&[Wanted {
            package: "mmdebstrap",
            why: "builds images from Debian packages",
        }])?;
    }
    println!("images: building {image} from Debian packages, about half a minute");
    let tar = sandbox_dir()?.join("bootstrap.tar");
    let mut make = command("mmdebstrap", &["--quiet", "--variant=minbase"]);
    make.arg(format!("--include={packages}"));
    make.args(hooks.iter().map(|hook| format!("--customize-hook={hook}")));
    make.arg(RELEASE).arg(&tar).arg("-"); // the sources come on standard input
    output_with_input(&mut make, &apt::sources()?)?;
    let mut import = command("docker", &["import", "-c"]);
    import.arg(format!("LABEL {LABEL}={recipe}"));
    for change in changes {
        import.args(["-c", change]);
    }
    import.arg(&tar).arg(image);
    let old = id(image);
    output(&mut import)?;
    forget(old);
    fs::remove_file(&tar).map_err(|e| format!("{}: {e}", tar.display()))
}

fn postgres() -> Result<()> {
    let context = root().join("sandbox/postgres");
    build(POSTGRES, &context, &["Dockerfile", "docker-entrypoint.sh"])
}

fn panel() -> Result<()> {
    shell::run(&mut cargo(&[
        "build",
        "--quiet",
        "--package",
        "keyroll-sandbox-panel",
    ]))?;
    let context = sandbox_dir()?.join("panel-image");
    fs::create_dir_all(&context).map_err(|e| format!("{}: {e}", context.display()))?;
    let source = root().join("sandbox/panel/image");
    for (from, name) in [
        (source.join("Dockerfile"), "Dockerfile"),
        (source.join("npm"), "npm"),
        (built("panel"), "panel"),
    ] {
        fs::copy(&from, context.join(name)).map_err(|e| format!("{}: {e}", from.display()))?;
    }
    build(PANEL, &context, &["Dockerfile", "npm", "panel"])
}

/// Builds `image` from a folder whose content is `files`, unless the image was made from the very same.
fn build(image: &str, context: &Path, files: &[&str]) -> Result<()> {
    let mut pieces = vec![
        output(&mut command(
            "docker",
            &["image", "inspect", "--format", "{{.Id}}", BASE],
        ))?
        .into_bytes(),
    ];
    for file in files {
        let path = context.join(file);
        pieces.push(fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?);
    }
    let recipe = fingerprint(pieces.iter().map(Vec::as_slice));
    if recipe_of(image).as_ref() == Some(&recipe) {
        return Ok(());
    }
    println!("images: building {image}");
    let mut make = command("docker", &["build", "--quiet", "--tag", image, "--label"]);
    make.arg(format!("{LABEL}={recipe}"))
        .arg(context)
        // The newer builder is a plugin of its own, which a bare machine lacks.
        .env("DOCKER_BUILDKIT", "0");
    let old = id(image);
    output(&mut make)?;
    forget(old);
    Ok(())
}

fn id(image: &str) -> Option<String> {
    output(&mut command(
        "docker",
        &["image", "inspect", "--format", "{{.Id}}", image],
    ))
    .ok()
}

/// Removes the image that a new one has replaced, unless a container still runs it.
fn forget(image: Option<String>) {
    if let Some(id) = image {
        let _ = output(&mut command("docker", &["image", "rm", &id]));
    }
}

fn recipe_of(image: &str) -> Option<String> {
    let format = format!("{{{{index .Config.Labels \"{LABEL}\"}}}}");
    output(&mut command(
        "docker",
        &["image", "inspect", "--format", &format, image],
    ))
    .ok()
}
