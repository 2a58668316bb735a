//! The memory allocator of the process: mimalloc.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc,
    mi_zalloc_aligned,
};

/// mimalloc aligns each block to this number of bytes, or to its size if that is smaller.
const NATURAL_ALIGNMENT_BYTES: usize = 16;

/// mimalloc. Its crate asks for an alignment with each block. Then a block of more than 1 KiB, such
/// as the future of a request, takes the slow path for large alignments. Most blocks need only
/// their natural alignment, so this allocator asks only if more is needed.
pub struct Heap;

fn is_natural(layout: Layout) -> bool {
    layout.align() <= NATURAL_ALIGNMENT_BYTES && layout.align() <= layout.size()
}

// SAFETY: mimalloc is an allocator for all threads. Each block has at least the size and the
// alignment of its layout, see `is_natural`. A null pointer means that there is no memory.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: all sizes are allowed, and an alignment of a layout is a power of two.
        unsafe {
            if is_natural(layout) {
                mi_malloc(layout.size()).cast()
            } else {
                mi_malloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe {
            if is_natural(layout) {
                mi_zalloc(layout.size()).cast()
            } else {
                mi_zalloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller passes a block of this allocator.
        unsafe { mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller passes a block of this allocator and a valid size.
        unsafe {
            if layout.align() <= NATURAL_ALIGNMENT_BYTES && layout.align() <= size {
                mi_realloc(block.cast(), size).cast()
            } else {
                mi_realloc_aligned(block.cast(), size, layout.align()).cast()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_has_the_alignment_of_its_layout() {
        for align in [1, 2, 4, 8, 16, 32, 64, 128, 4096] {
            for size in (1..200).chain([1000, 1025, 1500, 3000, 4097, 6000, 70_000, 3_000_000]) {
                let layout = Layout::from_size_align(size, align).unwrap();
                let grown = Layout::from_size_align(3 * size, align).unwrap();
                // SAFETY: the size is not zero, and the blocks are released with their layouts.
                unsafe {
                    let block = Heap.alloc(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{layout:?}");
                    block.write(7);
                    let block = Heap.realloc(block, layout, grown.size());
                    assert!(block.addr().is_multiple_of(align) && block.read() == 7, "{grown:?}");
                    Heap.dealloc(block, grown);
                    let block = Heap.alloc_zeroed(layout);
                    assert!(block.addr().is_multiple_of(align), "{layout:?} zeroed");
                    assert!((0..size).all(|at| block.add(at).read() == 0));
                    Heap.dealloc(block, layout);
                }
            }
        }
    }
}
