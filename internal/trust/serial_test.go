package trust_test

import (
	"math/big"
	"testing"

	"github.com/kubepki/kubepki/internal/trust"
)

func TestSerialTextHasPairsOfDigits(t *testing.T) {
	for hex, want := range map[string]string{
		"0": "00", "a": "0A", "10": "10", "abc": "0ABC",
		"7c3a0000000000000000000000000000000000f": "07C3A0000000000000000000000000000000000F",
	} {
		n, _ := new(big.Int).SetString(hex, 16)
		if got := trust.SerialText(n); got != want {
			t.Errorf("SerialText(%s) is %s, want %s", hex, got, want)
		}
	}
}
