use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_new_file_has_its_mode_and_is_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    write_new(&path, b"first", SECRET).unwrap();
    assert_eq!(mode(&path), 0o600);
    let again = write_new(&path, b"second", SECRET).unwrap_err();
    assert!(
        matches!(&again, FileError::Exists(p) if *p == path),
        "{again}"
    );
    assert_eq!(read(&path).unwrap(), b"first");
}

#[test]
fn an_atomic_write_replaces_and_leaves_nothing_beside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("document");
    write_atomic(&path, b"first", PUBLIC).unwrap();
    write_atomic(&path, b"second", SECRET).unwrap();
    assert_eq!(read(&path).unwrap(), b"second");
    assert_eq!(mode(&path), 0o600);
    assert_eq!(names(dir.path()), ["document"]);
}

#[test]
fn an_atomic_write_that_fails_leaves_the_old_and_nothing_beside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("taken");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("inside"), b"x").unwrap();
    assert!(write_atomic(&path, b"new", PUBLIC).is_err());
    assert_eq!(names(dir.path()), ["taken"]);
    assert_eq!(names(&path), ["inside"]);
}

#[test]
fn an_exposed_secret_is_refused_with_the_command_that_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it's a key");
    write_new(&path, b"secret", SECRET).unwrap();
    for exposed in [0o604, 0o640, 0o660, 0o602, 0o610, 0o644] {
        fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).unwrap();
        let error = read_secret(&path).unwrap_err();
        assert!(matches!(error, FileError::Exposed { mode, .. } if mode == exposed));
        let text = error.to_string();
        let (_, command) = text.split_once("run `").unwrap();
        let command = command.strip_suffix('`').unwrap();
        let done = std::process::Command::new("sh")
            .arg("-c")
            .arg(command)
            .status();
        assert!(done.unwrap().success(), "{command}");
        assert_eq!(&**read_secret(&path).unwrap(), b"secret");
    }
}

#[test]
fn a_huge_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge");
    let file = File::create(&path).unwrap();
    file.set_len(MAX_LEN).unwrap();
    assert_eq!(read(&path).unwrap().len() as u64, MAX_LEN);
    file.set_len(MAX_LEN + 1).unwrap();
    assert!(matches!(read(&path), Err(FileError::TooLarge(_))));
}

#[test]
fn a_missing_file_is_named() {
    let text = read(Path::new("/nowhere/at-all.key"))
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("cannot read /nowhere/at-all.key: "),
        "{text}"
    );
}

#[test]
fn a_private_directory_is_for_its_owner_and_an_old_one_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("a/b");
    create_private_dir(&new).unwrap();
    assert_eq!(mode(&new), 0o700);
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    create_private_dir(&new).unwrap();
    assert_eq!(mode(&new), 0o755);
}
