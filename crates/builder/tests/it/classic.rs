//! Classic buildpacks, from a folder and from a Git repository.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::workbench::Workbench;

fn buildpack(folder: &Path, compile: &str) {
    let scripts = [
        ("detect", "#!/bin/sh\ntest -f \"$1/shop.conf\" && echo Shop\n".to_owned()),
        ("compile", format!("#!/bin/bash\nset -e\nBUILD_DIR=$1 CACHE_DIR=$2 ENV_DIR=$3\n{compile}\n")),
        (
            "release",
            "#!/bin/sh\nprintf -- '---\\ndefault_process_types:\\n  web: bin/shop\\nconfig_vars:\\n  SHOP: open\\n'\n"
                .to_owned(),
        ),
    ];
    fs::create_dir_all(folder.join("bin")).expect("created");
    for (name, script) in scripts {
        let path = folder.join("bin").join(name);
        fs::write(&path, script).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
    }
}

#[test]
fn a_classic_buildpack_compiles_with_its_cache_and_config_vars() {
    let mut bench = Workbench::new(&[("shop.conf", "")]);
    let folder = bench.beside("buildpack");
    buildpack(
        &folder,
        "echo '-----> Opening shop'; echo '       ok'\n\
         test -z \"$KEY\" && cat \"$ENV_DIR/KEY\" > \"$BUILD_DIR/key\"\n\
         echo \"$STACK $HOME\" > \"$BUILD_DIR/stack\"\n\
         cat \"$CACHE_DIR/runs\" 2>/dev/null || true; echo '       ran before' >> \"$CACHE_DIR/runs\"\n\
         mkdir -p \"$BUILD_DIR/.profile.d\" && echo 'export A=b' > \"$BUILD_DIR/.profile.d/shop.sh\"",
    );
    bench.buildpacks(&[&folder.to_string_lossy()]);
    bench.config.insert("KEY".to_owned(), "value".to_owned());
    let first = bench.build();
    assert_eq!(first.types(), [("web", "bin/shop")]);
    assert!(first.output.contains("-----> Shop app detected\n-----> Opening shop\n       ok\n"), "{}", first.output);
    assert_eq!(first.result().config_defaults["SHOP"], "open");
    assert_eq!(fs::read_to_string(bench.app().join("key")).expect("compiled"), "value");
    let expected = format!("heroku-24 {}\n", bench.app().display());
    assert_eq!(fs::read_to_string(bench.app().join("stack")).expect("compiled"), expected);
    let second = bench.build();
    assert!(second.output.contains("       ran before\n"), "{}", second.output);
}

#[test]
fn a_built_in_buildpack_comes_after_a_classic_one_and_sees_what_it_exports() {
    let mut bench = Workbench::new(&[("shop.conf", ""), ("bin/post_compile", "#!/bin/sh\nshop-tool > made\n")]);
    let folder = bench.beside("buildpack");
    buildpack(
        &folder,
        "touch \"$BUILD_DIR/requirements.txt\"; mkdir -p \"$BUILD_DIR/tools\"\n\
         printf '#!/bin/sh\\necho tool\\n' > \"$BUILD_DIR/tools/shop-tool\"; chmod +x \"$BUILD_DIR/tools/shop-tool\"\n\
         echo \"export PATH=$BUILD_DIR/tools:\\$PATH\" > \"$(dirname \"$0\")/../export\"",
    );
    bench.buildpacks(&[&folder.to_string_lossy(), "heroku/python"]);
    let built = bench.build();
    assert_eq!(built.status, 0, "{}", built.output);
    assert!(built.output.contains("-----> Python app detected\n"), "{}", built.output);
    assert_eq!(fs::read_to_string(bench.app().join("made")).expect("made"), "tool\n");
    assert!(built.result().layers.is_empty());
}

#[test]
fn a_buildpack_from_git_is_fetched_at_its_branch() {
    let mut bench = Workbench::new(&[("shop.conf", "")]);
    let folder = bench.beside("buildpack");
    buildpack(&folder, "true");
    for arguments in [
        &["init", "--quiet", "--initial-branch", "v2"][..],
        &["add", "."],
        &["-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "--quiet", "--message", "x"],
    ] {
        let status = std::process::Command::new("git").current_dir(&folder).args(arguments).status();
        assert!(status.expect("git runs").success());
    }
    let url = folder.to_string_lossy().into_owned();
    let git = |revision: &str| dozen_domain::buildpack::Reference::Git {
        url: url.clone(),
        revision: Some(revision.to_owned()),
    };
    bench.spec.buildpacks = vec![git("v2")];
    assert_eq!(bench.build().types(), [("web", "bin/shop")]);
    bench.spec.buildpacks = vec![git("v3")];
    let built = bench.build();
    assert_eq!(built.status, 1);
    assert!(built.output.contains(" !     Failed to fetch the buildpack "), "{}", built.output);
}

#[test]
fn a_buildpack_that_fails_or_does_not_fit_rejects_the_push() {
    let mut bench = Workbench::new(&[("shop.conf", "")]);
    let folder = bench.beside("buildpack");
    buildpack(&folder, "echo broken; exit 3");
    bench.buildpacks(&[&folder.to_string_lossy()]);
    let built = bench.build();
    assert_eq!(built.status, 1);
    assert!(built.output.ends_with(" !     Push rejected, failed to compile Shop app.\n"), "{}", built.output);
    let mut bench = Workbench::new(&[("other.conf", "")]);
    bench.buildpacks(&[&folder.to_string_lossy()]);
    let built = bench.build();
    assert!(
        built.status == 1 && built.output.contains("-----> App not compatible with buildpack: "),
        "{}",
        built.output
    );
}
