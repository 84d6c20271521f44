//! Builds in real containers, with a builder that does what the source says.

use std::{fs, time::Duration};

use dozen_api::{
    build::{Builds, Built, Error, Spec},
    engine::Engine,
};
use dozen_domain::{
    config::{Secret, Vars},
    ids::BuildId,
    limits::Limits,
};
use dozen_runtime::builds::MachineBuilds;

use crate::platform::Platform;

struct Fixture {
    p: Platform,
    builds: MachineBuilds,
}

async fn fixture(limits: Limits) -> Fixture {
    let p = Platform::start(limits).await;
    let builds = MachineBuilds::new(p.host.clone());
    Fixture { p, builds }
}

impl Fixture {
    fn spec(&self, source: &str) -> Spec {
        let build = BuildId::random();
        let path = self.p.data.path().join(format!("{build}.tar"));
        fs::write(&path, source).expect("a source");
        Spec {
            build,
            app: self.p.app,
            source: path,
            submodules: Vec::new(),
            buildpacks: Vec::new(),
            env: Vars::from([("SECRET".to_owned(), Secret::new("of the app"))]),
            platform_env: Vars::new(),
        }
    }

    async fn build(&self, source: &str) -> (Result<Built, Error>, String) {
        let mut output = Vec::new();
        let built = self.builds.build(self.spec(source), &mut output).await;
        (built, String::from_utf8(output).expect("text"))
    }
}

const SOURCE: &str = "layer deps vendor/deps k1\nwrite hello.txt 1\nprint working";

#[tokio::test(flavor = "multi_thread")]
async fn a_build_makes_an_image_that_runs_and_the_next_one_restores_its_layers() {
    let f = fixture(Limits::default()).await;
    let (first, output) = f.build(SOURCE).await;
    let first = first.unwrap_or_else(|error| panic!("{error:?}: {output}"));
    assert_eq!(output, "-----> Building on heroku-24, restored []\nworking\n");
    assert_eq!((first.layers.len(), first.foreign_ms, first.result.language.as_str()), (2, 12, "Test"));

    let (second, output) = f.build(&SOURCE.replace("txt 1", "txt 2")).await;
    let second = second.expect("built");
    assert!(output.contains(r#"restored ["deps"]"#), "{output}");
    assert_eq!(second.layers[0], first.layers[0]);
    assert_ne!(second.image, first.image);
    let (same, _) = f.build(SOURCE).await;
    assert_eq!(same.expect("built").image, first.image, "equal source, equal image");

    let mut one_off = f.p.one_off("run.1", "cat hello.txt vendor/deps/made; id -un");
    one_off.image = second.image;
    let dyno = f.p.engine.run(one_off).await.expect("started");
    let mut text = String::new();
    let mut output = f.p.engine.output(dyno.id).await.expect("output");
    tokio::io::AsyncReadExt::read_to_string(&mut output, &mut text).await.expect("text");
    assert_eq!(text, "2k1dyno\n");
    f.p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_sees_its_config_its_caches_and_nothing_of_the_platform() {
    let f = fixture(Limits::default()).await;
    let (built, output) = f.build("print-env SECRET\ncache one").await;
    built.expect("built");
    assert!(output.ends_with("of the app\ncached \n"), "{output}");
    let (_, output) = f.build("cache two").await;
    assert!(output.ends_with("cached one\n"), "{output}");
    f.builds.purge_cache(f.p.app).await.expect("purged");
    let (_, output) = f.build("cache three").await;
    assert!(output.ends_with("cached \n"), "{output}");
    let hidden = f.p.data.path().join("network.json");
    let (built, output) = f.build(&format!("print-file {}", hidden.display())).await;
    assert!(matches!(built, Err(Error::Platform { .. })), "{output}");
    assert!(output.contains("No such file"), "{output}");
    f.p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_their_causes() {
    let f = fixture(Limits::default()).await;
    let (failed, output) = f.build("print no\nfail").await;
    assert!(matches!(failed, Err(Error::Failed)) && output.ends_with("no\n"), "{output}");
    let (broken, _) = f.build("break").await;
    assert!(matches!(broken, Err(Error::Platform { .. })));
    f.p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_end_a_build_and_are_told() {
    let limits = Limits {
        build_seconds: 2,
        build_log_bytes: 10_000,
        build_disk_bytes: 32 << 20,
        build_memory_bytes: 128 << 20,
        ..Limits::default()
    };
    let f = fixture(limits).await;
    for (source, variable) in
        [("allocate", "BUILD_MEMORY_BYTES"), ("chatter", "BUILD_LOG_BYTES"), ("sleep", "BUILD_SECONDS")]
    {
        let (stopped, output) = f.build(source).await;
        assert!(matches!(&stopped, Err(Error::Limit(text)) if text.contains(variable)), "{source}: {stopped:?}");
        assert!(output.contains(variable), "{output}");
    }
    f.p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fills_the_disk_is_stopped() {
    let f = fixture(Limits { build_disk_bytes: 32 << 20, ..Limits::default() }).await;
    // Noticed while it runs, and when it ends before anyone looks again.
    for source in ["fill\npark", "fill"] {
        let (stopped, _) = f.build(source).await;
        assert!(matches!(&stopped, Err(Error::Limit(text)) if text.contains("DISK")), "{stopped:?}");
    }
    f.p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_build_leaves_nothing() {
    let f = fixture(Limits::default()).await;
    let dynos = f.p.data.path().join("run/dynos");
    let count = |path: &std::path::Path| fs::read_dir(path).expect("a directory").count();
    {
        let mut output = Vec::new();
        let build = f.builds.build(f.spec("sleep"), &mut output);
        // Long enough for the container to run, by its directory.
        let running = async {
            while count(&dynos) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        tokio::select! {
            _ = build => panic!("it sleeps"),
            () = running => {}
        }
    }
    let tmp = f.p.data.path().join("tmp");
    let gone = async {
        while count(&dynos) + count(&tmp) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::dyno::LONG, gone).await.expect("everything is gone");
    f.p.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn what_an_unchanged_build_costs() {
    let f = fixture(Limits::default()).await;
    f.build(SOURCE).await.0.expect("built");
    let mut times = Vec::new();
    for n in 0..15 {
        let spec = f.spec(&SOURCE.replace("txt 1", &format!("txt {n}")));
        let from = std::time::Instant::now();
        f.builds.build(spec, &mut tokio::io::sink()).await.expect("built");
        times.push(from.elapsed().as_micros());
    }
    times.sort_unstable();
    eprintln!("build with unchanged layers: median {} us, p90 {} us", times[7], times[13]);
    f.p.end().await;
}
