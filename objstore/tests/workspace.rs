//! Workspaces: allocated, filled, sealed, and written again.

use dmrpc_objstore::{AnyRef, Codec, Store, StoreError, block_on};

const LEN: usize = 1_000_000;

fn bytes(any: &AnyRef) -> Vec<u8> {
    block_on(any.get()).unwrap().to_vec()
}

/// Invariants 1 and 2.
#[test]
fn a_sealed_workspace_is_a_private_picture_at_the_same_address() -> Result<(), StoreError> {
    let store = block_on(Store::embedded())?;
    for len in [0, 1, 2000, 5000, LEN] {
        let mut workspace = block_on(store.workspace(len))?;
        let address = workspace.as_mut_ptr();
        // SAFETY: it is that long, and nobody else's.
        unsafe { address.write_bytes(7, len) };
        let mut view = block_on(workspace.seal(Codec(20)))?;
        let object = view.base().clone();
        assert_eq!(object.codec(), Codec(20));
        assert_eq!(bytes(&object), vec![7; len]);
        assert_eq!(view.as_bytes_mut().as_mut_ptr(), address);
        assert_eq!(view.as_bytes(), vec![7; len]);
        if len == LEN {
            assert_eq!(view.dirty_pages()?, 0);
            // SAFETY: the view is there.
            unsafe { *address.add(500_000) = 8 };
            assert_eq!(view.as_bytes()[500_000], 8);
            assert_eq!(view.dirty_pages()?, 1);
            assert_eq!(bytes(&object), vec![7; len]);
            let changed = block_on(view.commit())?;
            assert_eq!(block_on(changed.get())?[500_000], 8);
        }
    }
    Ok(())
}

#[test]
fn what_is_never_sealed_leaves_nothing() -> Result<(), StoreError> {
    let store = block_on(Store::embedded())?;
    // Each takes a good part of the pool.
    for _ in 0..100 {
        let mut workspace = block_on(store.workspace(32 << 20))?;
        // SAFETY: it is longer than that.
        unsafe { *workspace.as_mut_ptr() = 1 };
    }
    Ok(())
}
