//! The store as its callers use it: what is committed is found, shared and thrown away as it should be.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

struct Fixture {
    store: Store,
    data: tempfile::TempDir,
    app: AppId,
}

fn fixture() -> Fixture {
    let data = tempfile::tempdir().expect("a directory");
    let root = rustix::process::geteuid().is_root();
    let owners = Arc::new(Owners::open(data.path(), root).expect("owners"));
    let store = Store::open(data.path(), owners, 1 << 30).expect("a store");
    Fixture { store, data, app: AppId::random() }
}

impl Fixture {
    /// A build's upper directory with these files.
    fn upper(&self, files: &[(&str, &str)]) -> PathBuf {
        let upper = self.data.path().join(format!("upper-{}", uuid::Uuid::new_v4()));
        for (path, text) in files {
            let path = upper.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        upper
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.store.blobs()).expect("blobs").count()
    }
}

fn plan(name: &str, path: &str, key: &str) -> LayerPlan {
    LayerPlan { name: name.to_owned(), path: path.to_owned(), key: key.to_owned() }
}

fn result(layers: Vec<LayerPlan>) -> BuildResult {
    BuildResult {
        language: "Python".to_owned(),
        detected: None,
        process_types: vec![("web".parse().expect("a type"), "serve".to_owned())],
        launch_env: BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]),
        config_defaults: BTreeMap::new(),
        cron: None,
        health_check: None,
        layers,
    }
}

#[test]
fn equal_trees_are_equal_images_whatever_their_times() {
    let f = fixture();
    let files = [("b/two", "2"), ("a", "1"), (&"long/".repeat(60), "")].map(|(p, t)| (format!("{p}x"), t));
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), *t)).collect();
    let first = f.store.commit(f.app, &f.upper(&files), &result(vec![]), &[]).expect("an image");
    let upper = f.upper(&files);
    fs::File::open(upper.join("ax")).expect("a file").set_modified(std::time::UNIX_EPOCH).expect("a time");
    let second = f.store.commit(f.app, &upper, &result(vec![]), &[]).expect("an image");
    assert_eq!((first.image, first.layers), (second.image, second.layers));
    assert_eq!(f.blobs(), 3, "one layer, one config, one manifest");
}

#[test]
fn planned_subtrees_are_layers_found_again_by_their_key() {
    let f = fixture();
    let python = plan("python", ".heroku/python", "k1");
    let upper = f.upper(&[(".heroku/python/bin/python", "elf"), ("app.py", "print()")]);
    let first = f.store.commit(f.app, &upper, &result(vec![python.clone()]), &[]).expect("an image");
    assert_eq!(first.layers.len(), 2);
    let tree = f.store.layer(f.app, &python).expect("the layer");
    assert!(tree.join("app/.heroku/python/bin/python").is_file());
    assert!(f.store.layer(f.app, &plan("python", ".heroku/python", "k2")).is_none());

    let upper = f.upper(&[("app.py", "print(2)")]);
    let second =
        f.store.commit(f.app, &upper, &result(vec![python.clone()]), std::slice::from_ref(&python)).expect("an image");
    assert_eq!(second.layers[0], first.layers[0]);
    assert_ne!(second.layers[1], first.layers[1]);
    let mounts = f.store.mounts(f.app, &second.image).expect("mounts");
    assert_eq!(mounts.layers[0], tree);
    assert_eq!(fs::read_to_string(mounts.layers[1].join("app/app.py")).expect("the file"), "print(2)");
    assert!(!mounts.layers[1].join("app/.heroku/python").exists());
    assert_eq!(mounts.launch_env["LANG"], "C.UTF-8");
}

#[test]
fn a_lost_tree_comes_back_from_its_blob() {
    let f = fixture();
    let upper = f.upper(&[("bin/run", "#!/bin/sh"), ("data", "x")]);
    fs::set_permissions(upper.join("bin/run"), fs::Permissions::from_mode(0o755)).expect("a mode");
    symlink("bin/run", upper.join("link")).expect("a link");
    fs::hard_link(upper.join("data"), upper.join("same")).expect("a link");
    let image = f.store.commit(f.app, &upper, &result(vec![]), &[]).expect("an image");
    let other = AppId::random();
    let mounts = f.store.mounts(other, &image.image).expect("mounts of another app");
    let app = mounts.layers[0].join("app");
    assert_eq!(fs::read_link(app.join("link")).expect("a link"), Path::new("bin/run"));
    assert_eq!(app.join("bin/run").metadata().expect("a file").mode() & 0o777, 0o755);
    assert_eq!(app.join("same").metadata().expect("a file").nlink(), 2);
    if f.store.owners.root() {
        let uid = f.store.owners.uid(other).expect("a user").expect("as root");
        assert_eq!(app.join("data").metadata().expect("a file").uid(), uid);
    }
    fs::remove_dir_all(&mounts.layers[0]).expect("removed");
    let again = f.store.mounts(other, &image.image).expect("mounts");
    assert!(again.layers[0].join("app/data").is_file());
}

#[test]
fn whiteouts_and_opaque_directories_survive_the_blob() {
    let f = fixture();
    let upper = f.upper(&[("fresh/file", "x")]);
    let gone = std::ffi::CString::new(upper.join("gone").to_str().expect("text")).expect("a path");
    rustix::fs::mknodat(rustix::fs::CWD, gone, rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty(), 0)
        .expect("a whiteout");
    let fresh = upper.join("fresh");
    let marked = rustix::fs::lsetxattr(&fresh, "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).is_ok();
    let image = f.store.commit(f.app, &upper, &result(vec![]), &[]).expect("an image");
    let other = f.store.mounts(AppId::random(), &image.image).expect("mounts");
    let app = other.layers[0].join("app");
    let gone = app.join("gone").symlink_metadata().expect("a whiteout");
    assert!(std::os::unix::fs::FileTypeExt::is_char_device(&gone.file_type()) && gone.rdev() == 0);
    let mut value = [0_u8; 1];
    let opaque = rustix::fs::lgetxattr(app.join("fresh"), "user.overlay.opaque", &mut value[..]).is_ok();
    assert_eq!(opaque, marked);
}

#[test]
fn a_damaged_blob_is_told_and_not_mounted() {
    let f = fixture();
    let image = f.store.commit(f.app, &f.upper(&[("a", "1")]), &result(vec![]), &[]).expect("an image");
    let layer = f.store.blob(hex_of(&image.layers[0]).expect("digits"));
    let mut bytes = fs::read(&layer).expect("a blob");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&layer, bytes).expect("written");
    let error = f.store.mounts(AppId::random(), &image.image).expect_err("damaged");
    let named = |expected: &str| Some(expected) == layer.file_name().and_then(|name| name.to_str());
    assert!(matches!(&error, Error::Checksum { expected, actual } if named(expected) && actual.len() == 64), "{error}");
    // Its own app may have it unpacked already: that does not make the image whole.
    let error = f.store.mounts(f.app, &image.image).expect_err("damaged");
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
    let missing = f.store.mounts(f.app, &Digest("sha256:../../x".to_owned())).expect_err("no digest");
    assert!(matches!(missing, Error::Missing(_)), "{missing}");
}

#[test]
fn what_was_touched_but_not_changed_is_read_again_and_used() {
    let f = fixture();
    let image = f.store.commit(f.app, &f.upper(&[("a", "1")]), &result(vec![]), &[]).expect("an image");
    let first = f.store.mounts(f.app, &image.image).expect("mounted");
    let layer = f.store.blob(hex_of(&image.layers[0]).expect("digits"));
    let copy = f.data.path().join("copy");
    fs::copy(&layer, &copy).expect("copied");
    fs::rename(&copy, &layer).expect("restored");
    assert_eq!(f.store.mounts(f.app, &image.image).expect("mounted"), first);
    // A process that starts later knows of it through the mark.
    let mark = fs::read_to_string(f.store.image_mark(f.app, hex_of(&image.image).expect("digits"))).expect("a mark");
    assert!(mark.contains(&format!(" {} ", fs::metadata(&layer).expect("there").ino())), "{mark}");
}

#[test]
fn a_layer_cannot_reach_outside() {
    let f = fixture();
    for path in ["../x", "/etc", "a/../../x", "", "."] {
        let upper = f.upper(&[("a", "1")]);
        let made = f.store.commit(f.app, &upper, &result(vec![plan("x", path, "k")]), &[]);
        assert!(matches!(made, Err(Error::LayerPath(_))), "{path}");
    }
    let upper = f.upper(&[("a", "1")]);
    symlink(f.data.path(), upper.join("way")).expect("a link");
    let made = f.store.commit(f.app, &upper, &result(vec![plan("x", "way/apps", "k")]), &[]);
    assert!(matches!(made, Err(Error::LayerPath(_))));
}

#[test]
fn what_no_image_needs_is_removed_and_the_rest_stays() {
    let f = fixture();
    let python = plan("python", "py", "k1");
    let commit = |text: &str, restored: &[LayerPlan]| {
        let files: &[(&str, &str)] = if restored.is_empty() { &[("py/lib", "x"), ("a", text)] } else { &[("a", text)] };
        f.store.commit(f.app, &f.upper(files), &result(vec![python.clone()]), restored).expect("an image")
    };
    let first = commit("1", &[]);
    let second = commit("2", std::slice::from_ref(&python));
    assert_eq!(f.blobs(), 7, "two images that share a layer; configs differ");
    let other = AppId::random();
    f.store.mounts(other, &first.image).expect("promoted");
    f.store.retain(f.app, std::slice::from_ref(&second.image)).expect("retained");
    assert_eq!(f.blobs(), 7, "the other app still has the first");
    f.store.retain(other, &[]).expect("retained");
    assert_eq!(f.blobs(), 4);
    assert!(f.store.layer(f.app, &python).is_some());
    assert!(f.store.mounts(f.app, &second.image).is_ok());
    f.store.retain(f.app, &[]).expect("retained");
    assert_eq!(f.blobs(), 0);
    assert!(!f.store.app(f.app).exists());
}

#[test]
fn a_tree_of_an_earlier_boot_that_was_not_synced_is_made_again() {
    let f = fixture();
    let image = f.store.commit(f.app, &f.upper(&[("a", "1")]), &result(vec![]), &[]).expect("an image");
    let tree = f.store.layers(f.app).join(hex_of(&image.layers[0]).expect("digits"));
    let state = tree.with_extension("state");
    while fs::read_to_string(&state).is_ok_and(|text| text != "synced") {
        std::thread::yield_now();
    }
    fs::write(&state, "another-boot").expect("written");
    fs::write(tree.join("app/a"), "").expect("truncated by the power failure");
    f.store.mounts(f.app, &image.image).expect("mounts");
    assert_eq!(fs::read_to_string(tree.join("app/a")).expect("a file"), "1");
}

#[test]
fn an_image_over_the_limit_is_refused() {
    let data = tempfile::tempdir().expect("a directory");
    let owners = Arc::new(Owners::open(data.path(), false).expect("owners"));
    let store = Store::open(data.path(), owners, 10).expect("a store");
    let upper = data.path().join("upper");
    fs::create_dir(&upper).expect("a directory");
    let made = store.commit(AppId::random(), &upper, &result(vec![]), &[]);
    assert!(matches!(made, Err(Error::TooLarge { limit: 10, .. })));
}

#[test]
fn nothing_is_thrown_away_while_an_image_cannot_be_read() {
    let f = fixture();
    let other = AppId::random();
    let kept = f.store.commit(other, &f.upper(&[("a", "1")]), &result(vec![]), &[]).expect("an image");
    // Any fault of the disk but "there is no such file" will do.
    let manifest = f.store.blob(hex_of(&kept.image).expect("digits"));
    let text = fs::read(&manifest).expect("a manifest");
    fs::remove_file(&manifest).expect("removed");
    fs::create_dir(&manifest).expect("a directory");
    let before = f.blobs();
    assert!(f.store.retain(f.app, &[]).is_err());
    assert_eq!(f.blobs(), before);
    fs::remove_dir(&manifest).expect("removed");
    fs::write(&manifest, text).expect("a manifest");
    f.store.retain(f.app, &[]).expect("collected");
    assert_eq!(f.blobs(), before);
}

/// What a tar program makes of an archive, as `path: contents`.
fn listed(archive: &Path, to: &Path) -> Vec<String> {
    fs::create_dir(to).expect("a directory");
    let tar = std::process::Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(to).output().expect("tar");
    assert!(tar.status.success(), "{tar:?}");
    let mut all = Vec::new();
    let mut ahead = vec![to.join("app")];
    while let Some(path) = ahead.pop() {
        let name = path.strip_prefix(to).expect("below").display().to_string();
        match path.symlink_metadata().expect("there") {
            meta if meta.is_dir() => {
                ahead.extend(fs::read_dir(&path).expect("a directory").flatten().map(|entry| entry.path()));
            }
            meta if meta.is_symlink() => {
                all.push(format!("{name}: {}", fs::read_link(&path).expect("a link").display()))
            }
            _ => all.push(format!("{name}: {}", fs::read_to_string(&path).expect("text"))),
        }
    }
    all.sort();
    all
}

#[test]
fn an_image_of_layers_is_one_archive_that_becomes_an_image_again() {
    let f = fixture();
    let python = plan("python", "py", "k1");
    let upper = f.upper(&[("py/lib", "x"), ("py/gone", "old")]);
    let first = f.store.commit(f.app, &upper, &result(vec![python.clone()]), &[]).expect("an image");
    assert_eq!(first.layers.len(), 2);
    // A build above the restored layer hid one of its files and changed another.
    let long = format!("{}end", "long/".repeat(40));
    let upper = f.upper(&[("a", "1"), (&long, "far"), ("py/lib", "changed")]);
    symlink("/usr/bin/env", upper.join("link")).expect("a link");
    fs::hard_link(upper.join("a"), upper.join("b")).expect("a link");
    let whiteout = upper.join("py/gone");
    let whiteout = std::ffi::CString::new(whiteout.as_os_str().as_encoded_bytes()).expect("a path");
    rustix::fs::mknodat(rustix::fs::CWD, whiteout, rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty(), 0)
        .expect("a whiteout");
    let image =
        f.store.commit(f.app, &upper, &result(vec![python.clone()]), std::slice::from_ref(&python)).expect("an image");

    let archive = f.data.path().join("slug.tgz");
    f.store.export(f.app, &image.image, &archive).expect("exported");
    let same = f.data.path().join("same.tgz");
    f.store.export(f.app, &image.image, &same).expect("exported");
    assert_eq!(fs::read(&archive).expect("a file"), fs::read(&same).expect("a file"), "equal images, equal archives");
    let names = std::process::Command::new("tar").arg("-tzf").arg(&archive).output().expect("tar");
    let names = String::from_utf8(names.stdout).expect("text");
    assert!(names.starts_with("./app/\n./app/") && names.lines().all(|name| name.starts_with("./app/")), "{names}");
    let script = "# What the image sets for every process, below config vars.\n\
                  [ -n \"${LANG+set}\" ] || export LANG='C.UTF-8'\n";
    let expected = [
        format!("app/.profile.d/000_launch_env.sh: {script}"),
        "app/a: 1".to_owned(),
        "app/b: 1".to_owned(),
        "app/link: /usr/bin/env".to_owned(),
        format!("app/{long}: far"),
        "app/py/lib: changed".to_owned(),
    ];
    assert_eq!(listed(&archive, &f.data.path().join("out")), expected);

    let (other, scratch) = (AppId::random(), f.data.path().join("scratch"));
    let plain = BuildResult { launch_env: BTreeMap::new(), ..result(vec![]) };
    let imported = f.store.import(other, &archive, &scratch, 1 << 30, &plain).expect("imported");
    assert!(!scratch.exists());
    assert_eq!((imported.layers.len(), f.store.build_result(&imported.image).expect("a result")), (1, plain));
    let tree = &f.store.mounts(other, &imported.image).expect("mounts").layers[0];
    if f.store.owners.root() {
        let uid = f.store.owners.uid(other).expect("a user").expect("one");
        assert_eq!(tree.join("app/py/lib").metadata().expect("a file").uid(), uid);
    }
    let again = f.data.path().join("again.tgz");
    f.store.export(other, &imported.image, &again).expect("exported");
    assert_eq!(listed(&again, &f.data.path().join("out2")), expected);
}

#[test]
fn what_is_no_slug_leaves_nothing() {
    let f = fixture();
    let (archive, scratch) = (f.data.path().join("slug.tgz"), f.data.path().join("scratch"));
    fs::write(&archive, "no gzip").expect("a file");
    let made = f.store.import(f.app, &archive, &scratch, 1 << 30, &result(vec![]));
    assert!(matches!(made, Err(Error::Archive(_))), "{made:?}");
    assert!(!scratch.exists() && f.blobs() == 0);
}
