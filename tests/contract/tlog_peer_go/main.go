// The Go project's own transparency log code, as a second opinion on ours: golang.org/x/mod/sumdb/tlog and note, which
// the Go checksum database runs on. Reads a request from stdin and answers on stdout, both JSON; bytes are base64.
package main

import (
	"encoding/json"
	"log"
	"os"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type inclusion struct {
	Index int64    `json:"index"`
	Size  int64    `json:"size"`
	Proof [][]byte `json:"proof"`
	Valid bool     `json:"valid"`
}

type consistency struct {
	Old   int64    `json:"old"`
	New   int64    `json:"new"`
	Proof [][]byte `json:"proof"`
	Valid bool     `json:"valid"`
}

type exchange struct {
	Leaves      [][]byte      `json:"leaves"`      // request: the log
	Roots       [][]byte      `json:"roots"`       // answer: root of each size, from 0
	Inclusion   []inclusion   `json:"inclusion"`   // request: our proofs; answer: the peer's, and whether ours hold
	Consistency []consistency `json:"consistency"` // the same
	Keys        []string      `json:"keys"`        // request: verifier keys
	Note        []byte        `json:"note"`        // request: a note of ours
	NoteText    string        `json:"note_text"`   // answer: its text, once opened
	NoteError   string        `json:"note_error"`  // answer: why it was not opened
	SignerKey   string        `json:"signer_key"`  // request: a private key in the note package's form
	Text        string        `json:"text"`        // request: a text to sign with it
	Signed      []byte        `json:"signed"`      // answer: the peer's note
}

func main() {
	log.SetFlags(0)
	var x exchange
	check(json.NewDecoder(os.Stdin).Decode(&x))
	answerTree(&x)
	answerNote(&x)
	check(json.NewEncoder(os.Stdout).Encode(&x))
}

func answerTree(x *exchange) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, index := range indexes {
			found = append(found, stored[index])
		}
		return found, nil
	})
	for number, leaf := range x.Leaves {
		hashes, err := tlog.StoredHashes(int64(number), leaf, reader)
		check(err)
		stored = append(stored, hashes...)
	}
	roots := make([]tlog.Hash, len(x.Leaves)+1)
	for size := range roots {
		root, err := tlog.TreeHash(int64(size), reader)
		check(err)
		roots[size] = root
		x.Roots = append(x.Roots, root[:])
	}
	for i := range x.Inclusion {
		one := &x.Inclusion[i]
		leaf := tlog.RecordHash(x.Leaves[one.Index])
		one.Valid = tlog.CheckRecord(hashes(one.Proof), one.Size, roots[one.Size], one.Index, leaf) == nil
		proof, err := tlog.ProveRecord(one.Size, one.Index, reader)
		check(err)
		one.Proof = bytes(proof)
	}
	for i := range x.Consistency {
		one := &x.Consistency[i]
		one.Valid = tlog.CheckTree(hashes(one.Proof), one.New, roots[one.New], one.Old, roots[one.Old]) == nil
		proof, err := tlog.ProveTree(one.New, one.Old, reader)
		check(err)
		one.Proof = bytes(proof)
	}
}

func answerNote(x *exchange) {
	var verifiers []note.Verifier
	for _, key := range x.Keys {
		verifier, err := note.NewVerifier(key)
		check(err)
		verifiers = append(verifiers, verifier)
	}
	if x.Note != nil {
		opened, err := note.Open(x.Note, note.VerifierList(verifiers...))
		if err != nil {
			x.NoteError = err.Error()
		} else {
			x.NoteText = opened.Text
		}
	}
	if x.SignerKey != "" {
		signer, err := note.NewSigner(x.SignerKey)
		check(err)
		x.Signed, err = note.Sign(&note.Note{Text: x.Text}, signer)
		check(err)
	}
}

func hashes(proof [][]byte) []tlog.Hash {
	converted := []tlog.Hash{}
	for _, data := range proof {
		var hash tlog.Hash
		copy(hash[:], data)
		converted = append(converted, hash)
	}
	return converted
}

func bytes(proof []tlog.Hash) [][]byte {
	converted := [][]byte{}
	for _, hash := range proof {
		converted = append(converted, append([]byte(nil), hash[:]...))
	}
	return converted
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
