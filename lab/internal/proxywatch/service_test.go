package proxywatch

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

// after is a node on which a service answers some time after it was made.
func after(d time.Duration) Dial {
	begin := time.Now()
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		if time.Since(begin) < d {
			<-ctx.Done() // what is sent is dropped
			return nil, ctx.Err()
		}
		conn, _ := net.Pipe()
		return conn, nil
	}
}

func check(t *testing.T, endpoints bool, nodes map[string]Dial) (map[string]time.Duration, error) {
	t.Helper()
	api := fake.NewClientset()
	if endpoints {
		first := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Ports: []discoveryv1.EndpointPort{{Port: ptr.To[int32](6443)}}}
		if _, err := api.DiscoveryV1().EndpointSlices("default").Create(t.Context(), first, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	took, err := Check(ctx, api, "lab-load", nodes)
	isClean(t, api)
	return took, err
}

// isClean checks that no service is left.
func isClean(t *testing.T, api kubernetes.Interface) {
	t.Helper()
	left, err := api.CoreV1().Services("").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(left.Items) > 0 {
		t.Errorf("%d services are left, %v", len(left.Items), err)
	}
}

func TestEachNodeIsTimedByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, err := check(t, true, map[string]Dial{"w1": after(0), "w2": after(10 * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		if took["w1"] > time.Second || took["w2"] < 10*time.Second || took["w2"] > 11*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestANodeThatNeverProgramsIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, err := check(t, true, map[string]Dial{"w1": after(0), "w2": after(time.Hour)})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "node w2") || strings.Contains(err.Error(), "w1") {
			t.Errorf("%v; want w2 alone", err)
		}
		if _, ok := took["w1"]; !ok || len(took) != 1 {
			t.Errorf("took %v; want w1 alone", took)
		}
	})
}

func TestAClusterWithoutItsFirstServiceCannotBeChecked(t *testing.T) {
	if _, err := check(t, false, map[string]Dial{"w1": after(0)}); err == nil {
		t.Error("no error")
	}
}
