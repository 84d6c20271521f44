//! The builder's part in tests of builds: instead of reading source code it does what the source says, line by line.
//!
//! `layer NAME PATH KEY` is a layer to be made of one file, `write PATH TEXT` a file of the app, `print TEXT` output,
//! `fail`, `break`, `sleep`, `fill` and `allocate` go wrong in their ways.

use std::{fs, io, io::Write, path::Path};

use dozen_domain::{
    buildpack::BuildSpec,
    image::{Analysis, BuildPlan, BuildResult, LayerPlan},
};
use serde::{Serialize, de::DeserializeOwned};

/// Runs a phase; answers the exit code.
pub(crate) fn run(phase: &str) -> i32 {
    match attempt(phase) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stdout(), "{phase}: {error}");
            2
        }
    }
}

fn read<T: DeserializeOwned>(name: &str) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(Path::new("/build").join(name))?)?)
}

fn write<T: Serialize>(name: &str, value: &T) -> io::Result<()> {
    fs::write(Path::new("/build").join(name), serde_json::to_vec(value)?)
}

fn put(path: &str, text: &str) -> io::Result<()> {
    let path = Path::new("/app").join(path);
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    fs::write(path, text)
}

fn attempt(phase: &str) -> io::Result<i32> {
    let spec: BuildSpec = read("spec.json")?;
    let source = fs::read_to_string("/build/source.tar")?;
    let steps: Vec<Vec<&str>> = source.lines().map(|line| line.splitn(3, ' ').collect()).collect();
    let layers: Vec<LayerPlan> = steps
        .iter()
        .filter(|step| step[0] == "layer")
        .map(|step| {
            let (path, key) = step[2].split_once(' ').unwrap_or((step[2], ""));
            LayerPlan { name: step[1].to_owned(), path: path.to_owned(), key: key.to_owned() }
        })
        .collect();
    if phase == "analyze" {
        write("analysis.json", &Analysis { buildpacks: vec!["Test".to_owned()], layers })?;
        return Ok(0);
    }
    let plan: BuildPlan = read("plan.json")?;
    let mut out = io::stdout();
    writeln!(out, "-----> Building on {}, restored {:?}", spec.stack, plan.restored)?;
    for layer in layers.iter().filter(|layer| !plan.restored.contains(&layer.name)) {
        put(&format!("{}/made", layer.path), &layer.key)?;
    }
    for step in &steps {
        match step[..] {
            ["write", path, text] => put(path, text)?,
            ["print", ..] => writeln!(out, "{}", step[1..].join(" "))?,
            ["print-env", name] => writeln!(out, "{}", fs::read_to_string(format!("/build/env/{name}"))?)?,
            ["print-file", path] => writeln!(out, "{}", fs::read_to_string(path)?)?,
            ["cache", text] => {
                writeln!(out, "cached {}", fs::read_to_string("/cache/note").unwrap_or_default())?;
                fs::write("/cache/note", text)?;
            }
            ["fail"] => return Ok(1),
            ["break"] => return Ok(2),
            ["sleep"] => loop {
                std::thread::park();
            },
            ["chatter"] => loop {
                writeln!(out, "more and more")?;
            },
            ["fill"] => put("large", &"x".repeat(64 << 20))?,
            ["park"] => std::thread::park(),
            ["allocate"] => drop(std::hint::black_box(vec![1_u8; 512 << 20])),
            _ => {}
        }
    }
    out.flush()?;
    write("timing.json", &serde_json::json!({"foreign_ms": 12}))?;
    write(
        "result.json",
        &BuildResult {
            language: "Test".to_owned(),
            detected: None,
            process_types: vec![("web".parse().map_err(io::Error::other)?, "serve".to_owned())],
            launch_env: Default::default(),
            config_defaults: Default::default(),
            cron: None,
            health_check: None,
            layers,
        },
    )?;
    Ok(0)
}
