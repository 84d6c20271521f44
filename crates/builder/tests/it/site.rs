//! Static sites.

use crate::workbench::Workbench;

#[test]
fn a_folder_with_a_first_page_is_served() {
    let built = Workbench::new(&[("public/index.html", "<h1>hello</h1>")]).build();
    assert_eq!(built.types(), [("web", "/opt/dozen/bin/dozen static-server --root public")]);
    let built = Workbench::new(&[("static.json", r#"{"root": "site"}"#), ("site/index.html", "")]).build();
    assert_eq!(built.types(), [("web", "/opt/dozen/bin/dozen static-server")]);
}

#[test]
fn a_settings_file_that_cannot_be_used_is_explained() {
    let built = Workbench::new(&[("static.json", "{"), ("index.html", "")]).build();
    assert_eq!((built.status, built.analysis.is_none()), (1, true));
    assert!(built.output.contains(" !     static.json cannot be used: "), "{}", built.output);
}
