//! The ledger: rows cannot be changed, and if they are, it is seen.

use dozen_control::ops::ledger::{self, Fault};
use dozen_domain::release::Version;
use serde_json::json;
use sqlx::{Connection, SqliteConnection};

use crate::api::Api;

/// A platform with an app of six releases, its database open behind its back.
async fn tampering() -> (Api, SqliteConnection) {
    let api = Api::new().await;
    let app = api.app("shop").await;
    api.patch("/apps/shop/config-vars", json!({"A": "1"})).await.is(200);
    api.deploy(app.id, "aaa", &[("web", "one")]).await;
    api.patch("/apps/shop/config-vars", json!({"A": "2"})).await.is(200);
    api.deploy(app.id, "bbb", &[("web", "two")]).await;
    let url = format!("sqlite://{}", api.directory.path().join("dozen.db").display());
    (api, SqliteConnection::connect(&url).await.expect("a connection"))
}

async fn faults(api: &Api) -> Vec<Fault> {
    let mut checked = ledger::verify(&api.context).await.expect("a check");
    assert_eq!(checked.len(), 1);
    checked.remove(0).faults
}

#[tokio::test]
async fn a_ledger_that_nobody_touched_is_whole() {
    let (api, _) = tampering().await;
    let checked = ledger::verify(&api.context).await.expect("a check");
    assert_eq!((checked[0].releases, checked[0].faults.as_slice()), (6, &[][..]));
    assert_ne!(checked[0].head, ledger::GENESIS);
}

#[tokio::test]
async fn the_database_refuses_to_change_or_remove_releases() {
    let (api, mut db) = tampering().await;
    for statement in [
        "UPDATE releases SET description = 'x' WHERE version = 3",
        "UPDATE releases SET slug = NULL",
        "DELETE FROM releases WHERE version = 6",
        "UPDATE release_outcomes SET status = 'failed'",
        "DELETE FROM release_outcomes",
    ] {
        let refused = sqlx::query(statement).execute(&mut db).await.expect_err(statement).to_string();
        assert!(refused.contains("never"), "{statement}: {refused}");
    }
    assert_eq!(faults(&api).await, []);
}

#[tokio::test]
async fn changes_behind_the_triggers_are_found() {
    let check = async |statement: &'static str, expected: &[Fault]| {
        let (api, mut db) = tampering().await;
        for trigger in ["DROP TRIGGER releases_are_never_changed", "DROP TRIGGER releases_are_never_removed"] {
            sqlx::query(trigger).execute(&mut db).await.expect(trigger);
        }
        sqlx::query("PRAGMA foreign_keys = OFF").execute(&mut db).await.expect("a pragma");
        sqlx::query(statement).execute(&mut db).await.expect(statement);
        assert_eq!(faults(&api).await, expected, "{statement}");
    };
    let v = Version;
    check("UPDATE releases SET description = 'nothing to see' WHERE version = 4", &[Fault::Changed(v(4))]).await;
    check("UPDATE releases SET email = 'x@example.com' WHERE version = 3", &[Fault::Changed(v(3))]).await;
    check("UPDATE releases SET slug = NULL WHERE version = 6", &[Fault::Changed(v(6))]).await;
    check("UPDATE releases SET created_at = created_at + 1 WHERE version = 1", &[Fault::Changed(v(1))]).await;
    let moved = "UPDATE releases SET config = (SELECT config FROM releases WHERE version = 3) WHERE version = 5";
    check(moved, &[Fault::Changed(v(5)), Fault::Sealed(v(5))]).await;
    let hash = "UPDATE releases SET hash = zeroblob(32) WHERE version = 5";
    check(hash, &[Fault::Changed(v(5)), Fault::Unlinked(v(6))]).await;
    check("DELETE FROM releases WHERE version = 3", &[Fault::Gap { expected: v(3), found: v(4) }]).await;
    check("DELETE FROM releases WHERE version = 6", &[Fault::Cut(v(5))]).await;
}
