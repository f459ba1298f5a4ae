package explain

import ("testing";"encoding/json";"os";"bufio")

func TestTry(t *testing.T){
 f,_:=os.Open("/tmp/expl/lines.txt"); s:=bufio.NewScanner(f)
 for s.Scan(){ e:=Line(s.Text(),""); b,_:=json.MarshalIndent(e,"","  "); t.Logf("%s\n%s",s.Text(),b)}
}
