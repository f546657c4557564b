//! Many files, and files that share chunks.

use super::fixture::{Root, TestPackage, content, directory, file, link};

#[test]
fn thousands_of_small_files_in_many_directories_arrive() {
    let mut entries = Vec::new();
    for folder in 0..40 {
        entries.push(directory(&format!("d{folder}")));
        for number in 0..100u64 {
            entries
                .push(file(format!("d{folder}/{number}"), content(folder * 100 + number, (number % 7 * 300) as usize)));
        }
        entries.push(link(&format!("d{folder}/link"), "../d0/1"));
    }
    let (root, package) = (Root::new(), TestPackage::new("1.0", entries));
    let store = root.open();
    package.put_manifest(&store);
    store.prepare(package.digest()).unwrap();
    package.write(&store, (0..package.count()).rev());
    drop(store);
    let store = root.open();
    assert_eq!(store.prepare(package.digest()).unwrap().available.len(), package.count());
    store.flush().unwrap();
    store.publish(package.digest()).unwrap();
    package.assert_published_in(&store);
    assert!(store.verify().unwrap().is_clean());
    store.delete(package.digest()).unwrap();
}
