// Check a log folder with Go's own implementation of notes and transparency logs, which shares nothing with ours.
//
// For each line "size root" on standard input: the tree hash of that size, computed from the log's tiles, must be that root,
// a record proof of a leaf and a tree proof from the last size must hold. The checkpoint must open with the key.
package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// files reads tiles of height 8; a partial tile may have become a wider one.
type files struct{ folder string }

func (f files) Height() int { return 8 }

func (f files) SaveTiles([]tlog.Tile, [][]byte) {}

func (f files) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range tiles {
		data, err := f.read(tile)
		if err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, nil
}

func (f files) read(tile tlog.Tile) ([]byte, error) {
	for width := tile.W; width <= 256; width++ {
		wider := tile
		wider.W = width
		path := strings.Replace(wider.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(f.folder, path))
		if err == nil {
			return data[:tile.W*tlog.HashSize], nil
		}
	}
	return nil, fmt.Errorf("no tile %s", tile.Path())
}

func check(err error) {
	if err != nil {
		fmt.Println("REJECTED", err)
		os.Exit(1)
	}
}

func main() {
	folder, vkey := os.Args[1], os.Args[2]
	verifier, err := note.NewVerifier(vkey)
	check(err)
	text, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	check(err)
	opened, err := note.Open(text, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	var total int64
	_, err = fmt.Sscanf(lines[1], "%d", &total)
	check(err)
	root, err := tlog.ParseHash(lines[2])
	check(err)
	reader := tlog.TileHashReader(tlog.Tree{N: total, Hash: root}, files{folder})
	count, last, lastRoot := 0, int64(0), tlog.Hash{}
	scanner := bufio.NewScanner(os.Stdin)
	for scanner.Scan() {
		var size int64
		var packed string
		_, err := fmt.Sscanf(scanner.Text(), "%d %s", &size, &packed)
		check(err)
		raw, err := base64.StdEncoding.DecodeString(packed)
		check(err)
		var expected tlog.Hash
		copy(expected[:], raw)
		got, err := tlog.TreeHash(size, reader)
		check(err)
		if got != expected {
			check(fmt.Errorf("size %d: root %v, not %v", size, got, expected))
		}
		index := (size*size/3 + 11) % size
		leaf, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		check(err)
		proof, err := tlog.ProveRecord(size, index, reader)
		check(err)
		check(tlog.CheckRecord(proof, size, expected, index, leaf[0]))
		if last > 0 {
			tree, err := tlog.ProveTree(size, last, reader)
			check(err)
			check(tlog.CheckTree(tree, size, expected, last, lastRoot))
		}
		last, lastRoot = size, expected
		count++
	}
	fmt.Println("accepted", count, "of", total)
}
