//! As an ordinary user: the platform runs, says what is missing, and a push works all the same.

use dozen_testkit::App;

use crate::platform;

/// An ordinary user's id: any that is not root's.
const USER: u32 = 2000;

#[test]
fn without_root_it_runs_and_says_which_protections_are_missing() {
    let platform = platform().user(USER).start();
    let said = platform.output();
    assert!(said.contains("Missing protection: "), "{said}");
    let app = App::plain_without_cli(&platform, "rootless");
    let _pushed = app.push();
    assert!(app.log().contains("State changed from starting to up"));
}
