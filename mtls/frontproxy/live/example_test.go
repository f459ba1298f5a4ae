package live_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"k8s.io/client-go/kubernetes/fake"

	"github.com/kubepki/kubepki/mtls/frontproxy"
	"github.com/kubepki/kubepki/mtls/frontproxy/live"
)

func Example() {
	clientset := fake.NewClientset(exampleConfigMap()) // in a program: kubernetes.NewForConfig
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	settings := live.New(clientset, func(err error) {
		if err != nil {
			log.Print("settings of the front proxy: ", err)
		}
	})
	go settings.Run(ctx)
	if err := settings.WaitReady(ctx); err != nil {
		log.Fatal(err)
	}
	guard := &frontproxy.Guard{Settings: settings}
	now, err := guard.Settings.Settings()
	fmt.Println(now.AllowedNames, now.UserHeaders, err)
	// Output: [front-proxy-client] [X-Remote-User] <nil>
}
