//! Small apps to push: copies of `examples/`, or a few inline files, each a git repository of its own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Output, TestPlatform};

/// A git repository with an app in it.
#[derive(Debug)]
pub struct App<'a> {
    platform: &'a TestPlatform,
    directory: PathBuf,
    /// The app's name on the platform.
    pub name: String,
}

/// Folder of an example in the repository of the platform itself.
///
/// # Panics
/// When there is none.
pub fn example(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    assert!(folder.is_dir(), "there is no example at {}", folder.display());
    folder
}

impl<'a> App<'a> {
    /// A web server that needs no package: Python's own, answering with its environment and files.
    pub const SERVER: &'static str = include_str!("server.py");

    /// Makes an app on the platform and an empty repository with the remote `heroku` for it.
    ///
    /// # Panics
    /// When the platform refuses.
    pub fn create(platform: &'a TestPlatform, name: &str) -> Self {
        let app = Self::repository(platform, name);
        app.heroku(&["create", name]);
        app
    }

    fn repository(platform: &'a TestPlatform, name: &str) -> Self {
        let directory = platform.scratch(name);
        let app = Self { platform, directory, name: name.to_owned() };
        app.git(&["init", "-q", "-b", "main"]);
        app
    }

    /// As [`App::create`], with the files of an example, committed.
    ///
    /// # Panics
    /// When there is no such example.
    pub fn of_example(platform: &'a TestPlatform, name: &str, folder: &str) -> Self {
        let app = Self::create(platform, name);
        copy(&example(folder), &app.directory);
        app.commit("the example");
        app
    }

    /// As [`App::create`], with the plain server as `web` and a `worker` that prints, committed.
    pub fn plain(platform: &'a TestPlatform, name: &str) -> Self {
        let app = Self::create(platform, name);
        app.fill();
        app
    }

    /// As [`App::plain`], made by the executable's own command.
    ///
    /// # Panics
    /// When the platform refuses.
    pub fn plain_without_cli(platform: &'a TestPlatform, name: &str) -> Self {
        let app = Self::repository(platform, name);
        drop(platform.dozen_in(&app.directory, &["apps:create", name]).success());
        app.fill();
        app
    }

    fn fill(&self) {
        self.write("server.py", Self::SERVER);
        self.write("Procfile", "web: /usr/bin/python3 -u server.py\nworker: echo working; exec sleep 100000\n");
        self.commit("first");
    }

    /// The repository.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file of the app.
    ///
    /// # Panics
    /// When it cannot.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("a folder in the scratch directory");
        }
        fs::write(&path, text).expect("a file in the scratch directory");
        self.platform.own(&path);
    }

    /// Commits everything.
    pub fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
    }

    /// Runs git in the repository.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn git(&self, arguments: &[&str]) -> Output {
        self.platform.git(&self.directory, arguments).success()
    }

    /// Runs the official CLI in the repository, so that it knows the app.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn heroku(&self, arguments: &[&str]) -> Output {
        self.try_heroku(arguments).success()
    }

    /// As [`App::heroku`], failure allowed.
    pub fn try_heroku(&self, arguments: &[&str]) -> Output {
        self.platform.heroku_in(&self.directory, arguments)
    }

    /// Pushes `main`; whatever comes of it.
    pub fn try_push(&self) -> Output {
        self.platform.git(&self.directory, &["push", "heroku", "main"])
    }

    /// Pushes `main` and waits until the app answers.
    ///
    /// # Panics
    /// When the push is refused or no answer comes.
    #[track_caller]
    pub fn push(&self) -> Output {
        let output = self.try_push().success();
        self.wait_for_answer();
        output
    }

    /// Waits until `/` is answered with 200, and returns the body.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn wait_for_answer(&self) -> String {
        let what = format!("{} to answer", self.name);
        crate::wait_for(&what, crate::LONG, || {
            let answer = self.get("/");
            (answer.status == 200).then_some(answer.body)
        })
    }

    /// Requests a path of the app through the router.
    pub fn get(&self, path: &str) -> crate::Answer {
        self.platform.http(&format!("{}.localhost", self.name), path)
    }

    /// The last lines of the app's log, without the CLI.
    ///
    /// # Panics
    /// When the API refuses.
    pub fn log(&self) -> String {
        self.platform.dozen(&["logs", "-n", "1500", "-a", &self.name]).success().stdout
    }

    /// Waits until the log holds a text.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        crate::wait_until(&format!("{text:?} in the log of {}", self.name), crate::LONG, || self.log().contains(text));
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        // What a developer's machine has left there belongs to no app.
        if ["node_modules", "target", "__pycache__", ".venv"].iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if source.is_dir() {
            fs::create_dir_all(&target).expect("a folder");
            copy(&source, &target);
        } else {
            fs::copy(&source, &target).expect("a copy");
        }
    }
}
