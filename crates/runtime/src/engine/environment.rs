//! What a process is started with: its environment and the shell line around its command.

use std::collections::BTreeMap;

use dozen_domain::{
    config::{Secret, Vars},
    ids::DynoId,
    name::DynoName,
    size::Size,
};

/// Search path below whatever the image puts before it.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Runs as `bash -c SCRIPT bash <command>`: profile scripts as on Heroku, then the command in a shell of its own, in
/// place of this one. `WEB_CONCURRENCY` comes after the profile scripts: those of the buildpacks that compute it do so
/// only when it is not set.
const SCRIPT: &str = r#"for file in /app/.profile.d/*.sh; do [ -r "$file" ] && . "$file"; done; unset file
[ -r /app/.profile ] && . /app/.profile
export WEB_CONCURRENCY="${WEB_CONCURRENCY:-1}"
exec /bin/bash -c "$1""#;

/// The `argv` that runs a command as people write it in a Procfile.
pub(crate) fn argv(command: &str) -> Vec<String> {
    ["/bin/bash", "-c", SCRIPT, "bash", command].map(str::to_owned).to_vec()
}

/// The whole environment: the platform's defaults, below the image's launch environment, below config vars; `DYNO`,
/// `HEROKU_DYNO_ID` and `PORT` above all. A `PATH` of the image goes before the default one, a config var replaces both.
pub(crate) fn environment(
    launch: &BTreeMap<String, String>,
    config: &Vars,
    (dyno, name): (DynoId, &DynoName),
    size: Size,
    port: Option<u16>,
) -> Vars {
    let mut env: Vars = [
        ("HOME", "/app"),
        ("USER", "dyno"),
        ("LOGNAME", "dyno"),
        ("SHELL", "/bin/bash"),
        ("LANG", "C.UTF-8"),
        ("PATH", PATH),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), Secret::new(value)))
    .collect();
    env.insert("MEMORY_AVAILABLE".to_owned(), Secret::new((size.quota().memory >> 20).to_string()));
    for (key, value) in launch {
        let value = if key == "PATH" { joined_path(value) } else { value.clone() };
        env.insert(key.clone(), Secret::new(value));
    }
    env.extend(config.clone());
    env.insert("DYNO".to_owned(), Secret::new(name.to_string()));
    env.insert("HEROKU_DYNO_ID".to_owned(), Secret::new(dyno.to_string()));
    if let Some(port) = port {
        env.insert("PORT".to_owned(), Secret::new(port.to_string()));
    } else {
        env.remove("PORT");
    }
    env
}

fn joined_path(image: &str) -> String {
    let own = image.split(':').filter(|part| !part.is_empty() && *part != "$PATH" && *part != "${PATH}");
    let mut seen = Vec::new();
    for part in own.chain(PATH.split(':')) {
        if !seen.contains(&part) {
            seen.push(part);
        }
    }
    seen.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vars {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), Secret::new(*value))).collect()
    }

    #[test]
    fn config_vars_win_over_the_image_and_port_over_all() {
        let launch = BTreeMap::from([
            ("PATH".to_owned(), "/app/.heroku/python/bin:$PATH".to_owned()),
            ("LANG".to_owned(), "en_US.UTF-8".to_owned()),
            ("A".to_owned(), "image".to_owned()),
        ]);
        let config = vars(&[("A", "config"), ("PORT", "1"), ("DYNO", "x")]);
        let name = "web.1".parse().expect("a name");
        let dyno = DynoId::random();
        let env = environment(&launch, &config, (dyno, &name), Size::Standard2X, Some(5001));
        assert_eq!(env["HEROKU_DYNO_ID"].expose(), dyno.to_string());
        let value = |key: &str| env[key].expose();
        assert_eq!(value("PATH"), "/app/.heroku/python/bin:/usr/local/bin:/usr/bin:/bin");
        assert_eq!((value("A"), value("LANG"), value("HOME")), ("config", "en_US.UTF-8", "/app"));
        assert_eq!((value("PORT"), value("DYNO"), value("MEMORY_AVAILABLE")), ("5001", "web.1", "1024"));
        assert!(!env.contains_key("TERM"));
    }

    #[test]
    fn one_process_is_asked_for_unless_somebody_says_otherwise() {
        let concurrency = |size: Size, config: &[(&str, &str)]| {
            let name = "web.1".parse().expect("a name");
            let env = environment(&BTreeMap::new(), &vars(config), (DynoId::random(), &name), size, Some(5000));
            let argv = argv("printf %s $WEB_CONCURRENCY");
            let mut command = std::process::Command::new(&argv[0]);
            command.args(&argv[1..]).env_clear().envs(env.iter().map(|(key, value)| (key, value.expose())));
            String::from_utf8(command.output().expect("bash").stdout).expect("text")
        };
        for size in Size::ALL {
            assert_eq!(concurrency(size, &[]), "1", "{size}");
        }
        assert_eq!(concurrency(Size::Standard2X, &[("WEB_CONCURRENCY", "7")]), "7");
        assert_eq!(concurrency(Size::Standard2X, &[("WEB_CONCURRENCY", "")]), "1");
    }

    #[test]
    fn only_web_has_a_port() {
        let name = "worker.1".parse().expect("a name");
        let dyno = (DynoId::random(), &name);
        assert!(!environment(&BTreeMap::new(), &vars(&[("PORT", "1")]), dyno, Size::Basic, None).contains_key("PORT"));
    }

    #[test]
    fn a_command_keeps_its_pipes_and_quotes() {
        let command = r#"echo "a  b" | tr a '$' && exit 3"#;
        let argv = argv(command);
        let output = std::process::Command::new(&argv[0]).args(&argv[1..]).output().expect("bash");
        assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"$  b\n"[..], Some(3)));
    }
}
