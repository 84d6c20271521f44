//! The few files of `/etc` that programs look for: some the container's own, some the machine's, never all of it.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use dozen_api::shim::{Network, Spec};
use dozen_domain::config::Secret;

use super::mount::{Error, Root};

/// Id of user and group `dyno` inside.
pub const DYNO: u32 = 1000;

/// The machine's files and directories that a dyno may read. Nothing here holds a secret or names people.
const SHARED: &[&str] = &[
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gai.conf",
    "host.conf",
    "ImageMagick-6",
    "ImageMagick-7",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "perl",
    "pki/tls/certs",
    "pki/ca-trust/extracted",
    "protocols",
    "rpc",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
];

/// Directories whose name begins so hold settings of language runtimes under `/usr`.
const SHARED_PREFIXES: &[&str] = &["java-", "python"];

/// What is a dyno's own: the name of its file below [`OWN`], and where programs look for it.
const LINKS: &[(&str, &str)] = &[
    ("hosts", "/etc/hosts"),
    ("hostname", "/etc/hostname"),
    ("resolv.conf", "/etc/resolv.conf"),
    ("dyno", "/etc/heroku/dyno"),
    ("memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
];
/// Where the files are that are a dyno's own.
const OWN: &str = "/run/dozen";

/// Writes the files that are a dyno's own into what will be its `/run`.
pub(super) fn write_own(run: &Root, spec: &Spec) -> Result<(), Error> {
    let sandbox = &spec.sandbox;
    run.make(Path::new("/dozen"), true)?;
    run.write("/dozen/hosts", hosts(spec).as_bytes())?;
    run.write("/dozen/hostname", format!("{}\n", sandbox.hostname).as_bytes())?;
    run.write("/dozen/resolv.conf", &resolvers(&sandbox.network))?;
    run.write("/dozen/dyno", metadata(spec).to_string().as_bytes())?;
    run.write("/dozen/memory.limit_in_bytes", format!("{}\n", sandbox.memory_bytes).as_bytes())
}

/// The machine's files and directories that may be there for dynos to read.
pub(super) fn shared() -> Vec<PathBuf> {
    let etc = Path::new("/etc");
    let mut shared: Vec<PathBuf> = SHARED.iter().map(|name| etc.join(name)).collect();
    for entry in fs::read_dir(etc).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| SHARED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))) {
            shared.push(entry.path());
        }
    }
    shared
}

/// Furnishes `/etc` and returns the outside paths that are still to be bound there.
pub(super) fn furnish(root: &Root) -> Result<Vec<PathBuf>, Error> {
    let etc = Path::new("/etc");
    for directory in ["/etc/heroku", "/sys/fs/cgroup/memory"] {
        root.make(Path::new(directory), true)?;
    }
    root.write("/etc/passwd", passwd().as_bytes())?;
    root.write("/etc/group", format!("root:x:0:\ntty:x:5:\ndyno:x:{DYNO}:\nnogroup:x:65534:\n").as_bytes())?;
    root.link("/etc/mtab", Path::new("/proc/mounts"))?;
    for (name, place) in LINKS {
        root.link(place, &Path::new(OWN).join(name))?;
    }
    let mut binds = Vec::new();
    for path in shared() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        let parent = path.parent().unwrap_or(etc);
        let target = if found.is_symlink() { fs::read_link(&path).ok() } else { None };
        match target {
            // A link into what the dyno sees anyway stays a link.
            Some(target) if parent.join(&target).starts_with("/usr") || target.starts_with("../usr") => {
                root.make(parent, true)?;
                root.link(&path.to_string_lossy(), &target)?;
            }
            target => {
                let Ok(real) = target.map_or(Ok(found), |_| fs::metadata(&path)) else { continue };
                root.make(&path, real.is_dir())?;
                binds.push(path);
            }
        }
    }
    Ok(binds)
}

fn passwd() -> String {
    format!(
        "root:x:0:0:root:/root:/usr/sbin/nologin\n\
         dyno:x:{DYNO}:{DYNO}:dyno:/app:/bin/bash\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
}

fn hosts(spec: &Spec) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    let name = &spec.sandbox.hostname;
    match &spec.sandbox.network {
        Network::Bridge { addresses, .. } => {
            addresses.iter().for_each(|(address, _)| text.push_str(&format!("{address}\t{name}\n")));
        }
        Network::Host | Network::None => text.push_str(&format!("127.0.1.1\t{name}\n")),
    }
    text
}

/// The machine's resolvers. In a network of its own a dyno cannot reach one that listens on the machine's loopback, so
/// then those behind it are given.
fn resolvers(network: &Network) -> Vec<u8> {
    let host = fs::read("/etc/resolv.conf").unwrap_or_default();
    if matches!(network, Network::Bridge { .. }) && only_loopback(&String::from_utf8_lossy(&host)) {
        return fs::read("/run/systemd/resolve/resolv.conf").unwrap_or(host);
    }
    host
}

fn only_loopback(text: &str) -> bool {
    let mut servers = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|server| server.trim().parse::<IpAddr>().ok())
        .peekable();
    servers.peek().is_some() && servers.all(|server| server.is_loopback())
}

fn metadata(spec: &Spec) -> serde_json::Value {
    let variable = |name: &str| spec.env.get(name).map(Secret::expose).unwrap_or_default();
    serde_json::json!({
        "dyno": { "physical_id": spec.record.dyno, "size": spec.record.size, "name": spec.record.name },
        "app": { "id": spec.record.app, "name": variable("HEROKU_APP_NAME") },
        "release": {
            "id": spec.record.version,
            "commit": variable("HEROKU_SLUG_COMMIT"),
            "description": variable("HEROKU_SLUG_DESCRIPTION"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_replaced_only_when_all_are_loopback() {
        assert!(only_loopback("search example\nnameserver 127.0.0.53\noptions edns0\n"));
        assert!(!only_loopback("nameserver 127.0.0.53\nnameserver 10.0.0.1\n"));
        assert!(!only_loopback("# none\n"));
    }
}
