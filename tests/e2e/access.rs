//! Collaborators: who sees an app and who does not.

use dozen_testkit::App;

use crate::platform;

#[test]
fn a_collaborator_sees_the_app_and_a_stranger_does_not() {
    let platform = platform().start();
    let app = App::create(&platform, "shared");
    let key = platform.dozen(&["accounts:create", "bob@example.com"]).success().stdout.trim().to_owned();
    assert_eq!(platform.heroku_as(&key, &["whoami"]).success().stdout.trim(), "bob@example.com");
    drop(platform.heroku_as(&key, &["apps"]).success().says_not("shared"));
    drop(platform.heroku_as(&key, &["config", "-a", "shared"]).failure());

    drop(app.heroku(&["access:add", "bob@example.com"]));
    drop(app.heroku(&["access"]).says("bob@example.com"));
    drop(platform.heroku_as(&key, &["apps"]).success().says("shared"));
    drop(platform.heroku_as(&key, &["config:set", "BY=bob", "-a", "shared"]).success());
    drop(app.heroku(&["releases"]).says("bob@example.com"));
    drop(platform.heroku_as(&key, &["apps:destroy", "-a", "shared", "--confirm", "shared"]).failure());

    drop(app.heroku(&["access:remove", "bob@example.com"]));
    drop(platform.heroku_as(&key, &["config", "-a", "shared"]).failure());
    drop(platform.dozen(&["accounts:create", "bob@example.com"]).failure());
}
