// Command verify_receipt checks offline what a run did, with Go's standard library alone:
//
//	verify_receipt -key BASE64 receipt.json events.jsonl
//	verify_receipt -key BASE64 -proof proof.json receipt.json events.jsonl
//
// The key is a public key that you trust (oa receipt keys --json); repeat -key for older ones. The files come from
// oa receipt show --json, oa run tail --from-start --json and ReceiptService.GetInclusionProof. The program follows
// docs/protocol/receipts.md and receipt-log.md. It does not check the rules for single fields and transitions, nor
// the member "event" of a line, for which it would need the messages of proto/. If something does not hold, it prints
// the reason of docs/errors.md and exits with 65.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

// refuse ends the program with a reason of docs/errors.md.
func refuse(reason, format string, args ...any) {
	fmt.Printf("%s: %s\n", reason, fmt.Sprintf(format, args...))
	os.Exit(65)
}

func require(holds bool, reason, format string, args ...any) {
	if !holds {
		refuse(reason, format, args...)
	}
}

type keys map[string]ed25519.PublicKey

func (k keys) String() string { return "" }

func (k keys) Set(text string) error {
	public, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(public) != ed25519.PublicKeySize {
		return fmt.Errorf("a key is 32 bytes in base64")
	}
	id := sha256.Sum256(public)
	k[base64.RawURLEncoding.EncodeToString(id[:12])] = public
	return nil
}

// Receipt is openagents.runtime.v1.Receipt in proto3 JSON.
type Receipt struct {
	RunID     string `json:"runId"`
	Canonical []byte `json:"canonicalJson"`
	Signature []byte `json:"signature"`
	KeyID     string `json:"keyId"`
}

// Signed is the part of the signed statement that does not come from the events, or that has a reason of its own.
type Signed struct {
	RunID     string `json:"run_id"`
	Count     int    `json:"count"`
	ChainHead string `json:"chain_head"`
	LogEpoch  string `json:"log_epoch"`
	Kid       string `json:"kid"`
}

// checkReceipt returns what a receipt states, if a trusted key signed it.
func checkReceipt(receipt Receipt, trusted keys) Signed {
	key, known := trusted[receipt.KeyID]
	require(known, "unknown_key", "the receipt is signed with %s, which is not one of the keys", receipt.KeyID)
	require(ed25519.Verify(key, receipt.Canonical, receipt.Signature), "signature_invalid", "the receipt was changed")
	var signed Signed
	err := json.Unmarshal(receipt.Canonical, &signed)
	require(err == nil && signed.Kid == receipt.KeyID, "signature_invalid", "the bytes are no receipt of this key")
	require(signed.RunID == receipt.RunID, "receipt_foreign", "the receipt is that of %s", signed.RunID)
	return signed
}

// fields reads one message of protobuf: its numbers and its bytes, by field. Of a field, the last value counts.
func fields(message []byte) (map[uint64]uint64, map[uint64][]byte) {
	numbers, values := map[uint64]uint64{}, map[uint64][]byte{}
	for len(message) > 0 {
		tag, tagBytes := binary.Uvarint(message)
		require(tagBytes > 0, "chain_mismatch", "an event can't be read")
		message = message[tagBytes:]
		number, n := binary.Uvarint(message)
		size, wire := uint64(0), tag&7
		switch wire {
		case 1:
			size, n = 8, 0
		case 2:
			size = number
		case 5:
			size, n = 4, 0
		}
		require(n >= 0 && (n > 0 || wire%4 == 1) && (wire < 3 || wire == 5) && size <= uint64(len(message)-n),
			"chain_mismatch", "an event can't be read")
		if wire == 0 {
			numbers[tag>>3] = number
		} else {
			values[tag>>3] = message[n : uint64(n)+size]
		}
		message = message[uint64(n)+size:]
	}
	return numbers, values
}

const most = 1<<53 - 1 // where a total stops

// run is what the events lead to, as a receipt states it.
type run struct {
	id     string
	facts  map[string]any
	totals map[string]uint64
	chain  [32]byte
	seqs   []int
}

func newRun(id string) *run {
	r := run{id: id, totals: map[string]uint64{}, chain: sha256.Sum256([]byte("openagents.run.v1:" + id))}
	for _, total := range strings.Fields("cached_input_tokens input_tokens messages output_tokens text_bytes" +
		" tool_calls tool_failures tool_results verification_failures verifications") {
		r.totals[total] = 0
	}
	r.facts = map[string]any{"version": 1, "run_id": id, "first_seq": 1, "attempts": 0, "totals": r.totals}
	return &r
}

// add takes the bytes of the next event (openagents.runtime.v1.RunEvent) and returns its seq.
func (r *run) add(event []byte) int {
	numbers, values := fields(event)
	seq := int(numbers[2])
	require(string(values[1]) == r.id, "receipt_foreign", "an event is of %s", values[1])
	stamp, _ := fields(values[3])
	recorded := time.Unix(int64(stamp[1]), int64(stamp[2])).UTC().Format("2006-01-02T15:04:05.000000000Z")
	_, body := fields(values[6])
	r.seqs = append(r.seqs, seq)
	r.chain = sha256.Sum256(append(r.chain[:], event...))
	count := func(total string, n uint64) { r.totals[total] = min(r.totals[total]+min(n, most), most) }
	for kind := range body { // one, because it is a oneof
		numbers, values := fields(body[kind])
		switch kind {
		case 1: // run.created
			r.facts["user_id"], r.facts["org_id"], r.facts["create_time"] = string(values[1]), string(values[2]), recorded
		case 2: // run.started
			r.facts["attempts"] = numbers[3]
		case 4: // run.finished
			r.facts["outcome"] = map[uint64]string{1: "succeeded", 2: "failed", 3: "canceled"}[numbers[1]]
			r.facts["finish_reason"], r.facts["finish_time"] = string(values[2]), recorded
		case 10: // text.delta
			count("text_bytes", uint64(len(values[2])))
		case 11:
			count("tool_calls", 1)
		case 12: // tool.result
			count("tool_results", 1)
			count("tool_failures", numbers[2])
		case 13:
			count("messages", 1)
		case 14: // verification
			count("verifications", 1)
			count("verification_failures", 1-numbers[2])
		case 15: // usage
			count("input_tokens", numbers[2])
			count("output_tokens", numbers[3])
			count("cached_input_tokens", numbers[4])
		}
	}
	return seq
}

// check compares the run with what was signed: the events have to lead to exactly these bytes (RFC 8785).
func (r *run) check(signed Signed, canonical []byte) {
	seen := map[int]bool{}
	for _, seq := range r.seqs {
		seen[seq] = true
	}
	for i, seq := range r.seqs {
		want := i + 1
		require(seq >= want, "event_doubled", "event %d is there again", seq)
		require(seq == want || seen[want], "event_missing", "event %d is missing", want)
		require(seq == want, "event_misplaced", "event %d stands in the place of event %d", seq, want)
	}
	n, head := len(r.seqs), hex.EncodeToString(r.chain[:])
	require(n >= signed.Count, "tail_cut", "%d events instead of %d", n, signed.Count)
	require(n == signed.Count, "sequence_broken", "%d events instead of %d", n, signed.Count)
	require(head == signed.ChainHead, "chain_mismatch", "these are not the bytes that the receipt is of")
	r.facts["count"], r.facts["last_seq"], r.facts["chain_head"] = n, n, head
	r.facts["kid"], r.facts["log_epoch"] = signed.Kid, signed.LogEpoch
	var led bytes.Buffer
	encoder := json.NewEncoder(&led) // sorts the members of maps
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(r.facts)
	statement := strings.TrimSuffix(led.String(), "\n")
	require(err == nil && statement == string(canonical), "outcome_mismatch", "the events lead to %s", statement)
}

// strictJSON reads an object that has exactly the members of target.
func strictJSON(text []byte, target any) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(target)
	require(err == nil && !decoder.More(), "artifact_malformed", "%v", err)
}

func text(path string) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(66)
	}
	return content
}

func readEvents(path, runID string) *run {
	r := newRun(runID)
	for _, content := range bytes.Split(bytes.TrimSuffix(text(path), []byte("\n")), []byte("\n")) {
		var line struct {
			Seq   int             `json:"seq"`
			Event json.RawMessage `json:"event"`
			Bytes []byte          `json:"bytes"`
		}
		strictJSON(content, &line)
		seq := r.add(line.Bytes)
		require(seq == line.Seq, "artifact_malformed", "a line says %d of event %d", line.Seq, seq)
	}
	return r
}

// noteKey is the key id of c2sp.org/signed-note for Ed25519.
func noteKey(name string, key ed25519.PublicKey) []byte {
	id := sha256.Sum256(append([]byte(name+"\n\x01"), key...))
	return id[:4]
}

// checkLogged checks a proof of ReceiptService.GetInclusionProof (RFC 6962, 2.1.1).
func checkLogged(path string, leaf []byte, trusted keys) {
	var proof struct {
		LeafIndex  uint64   `json:"leafIndex,string"`
		Hashes     [][]byte `json:"hashes"`
		Checkpoint []byte   `json:"checkpoint"`
	}
	strictJSON(text(path), &proof)
	signed, signatures, found := strings.Cut(string(proof.Checkpoint), "\n\n")
	var origin, root64 string
	var size uint64
	_, err := fmt.Sscanf(signed, "%s\n%d\n%s", &origin, &size, &root64)
	root, err64 := base64.StdEncoding.Strict().DecodeString(root64)
	require(found && err == nil && err64 == nil && strings.HasPrefix(origin, "openagents.dev/receipts/"),
		"checkpoint_malformed", "the proof has no checkpoint of a log of receipts")
	good := false
	for _, line := range strings.Split(strings.TrimSuffix(signatures, "\n"), "\n") {
		name, signature64, _ := strings.Cut(strings.TrimPrefix(line, "— "), " ")
		signature, _ := base64.StdEncoding.DecodeString(signature64)
		for _, key := range trusted {
			if name == origin && len(signature) == 68 && bytes.Equal(signature[:4], noteKey(name, key)) {
				good = ed25519.Verify(key, []byte(signed+"\n"), signature[4:])
				require(good, "signature_invalid", "the checkpoint was changed")
			}
		}
	}
	require(good, "unknown_key", "none of the keys signed the checkpoint")
	hash := sha256.Sum256(append([]byte{0}, leaf...))
	index, last := proof.LeafIndex, size-1
	require(index < size, "not_in_log", "the log has %d leaves", size)
	for _, sibling := range proof.Hashes {
		require(last > 0, "not_in_log", "the proof is too long")
		if index%2 == 1 || index == last {
			hash = sha256.Sum256(append(append([]byte{1}, sibling...), hash[:]...))
			for index%2 == 0 && index != 0 {
				index, last = index/2, last/2
			}
		} else {
			hash = sha256.Sum256(append(append([]byte{1}, hash[:]...), sibling...))
		}
		index, last = index/2, last/2
	}
	require(last == 0 && bytes.Equal(hash[:], root), "not_in_log", "the proof does not lead to the checkpoint's root")
	fmt.Printf("leaf %d of %d in %s\n", proof.LeafIndex, size, origin)
}

func main() {
	trusted := keys{}
	flag.Var(trusted, "key", "a public key in base64; may be repeated")
	proof := flag.String("proof", "", "answer of GetInclusionProof")
	flag.Parse()
	var receipt Receipt
	strictJSON(text(flag.Arg(0)), &receipt)
	signed := checkReceipt(receipt, trusted)
	readEvents(flag.Arg(1), receipt.RunID).check(signed, receipt.Canonical)
	if *proof != "" {
		checkLogged(*proof, receipt.Canonical, trusted)
	}
	fmt.Printf("%s: %d events, chain %s\n", signed.RunID, signed.Count, signed.ChainHead)
}
