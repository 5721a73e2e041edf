// SPDX-License-Identifier: Apache-2.0

// Answers, one JSON line for each on stdin, what apimachinery itself makes of a patch: the oracle that record.py asks.
//
//	go mod init oracle && go get k8s.io/client-go@v0.32.3 && go build -o oracle .
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/structured-merge-diff/v4/fieldpath"
)

type question struct {
	Op      string          `json:"op"` // merge, apply or update
	Live    json.RawMessage `json:"live"`
	Patch   json.RawMessage `json:"patch"`
	Manager string          `json:"manager"`
	Force   bool            `json:"force"`
}

type kinds struct{}

func (kinds) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	obj, err := scheme.Scheme.New(gvk)
	if err == nil {
		obj.GetObjectKind().SetGroupVersionKind(gvk)
	}
	return obj, err
}

func (kinds) Default(runtime.Object) {}

func (kinds) Convert(_, _, _ interface{}) error { return fmt.Errorf("there is one version only") }

func (kinds) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	return in, nil
}

func (kinds) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

func decode(raw []byte, gvk schema.GroupVersionKind) (runtime.Object, error) {
	obj, err := kinds{}.New(gvk)
	if err != nil || len(raw) == 0 || string(raw) == "null" {
		return obj, err
	}
	return obj, json.Unmarshal(raw, obj)
}

func merge(q question, gvk schema.GroupVersionKind) (interface{}, error) {
	obj, err := decode(q.Live, gvk)
	if err != nil {
		return nil, err
	}
	merged, err := strategicpatch.StrategicMergePatch(q.Live, q.Patch, obj)
	return json.RawMessage(merged), err
}

func manage(q question, gvk schema.GroupVersionKind, said *unstructured.Unstructured) (interface{}, error) {
	version := fieldpath.APIVersion(gvk.GroupVersion().String())
	status := fieldpath.NewExcludeSetFilter(fieldpath.NewSet(fieldpath.MakePathOrDie("status")))
	manager, err := managedfields.NewDefaultFieldManager(
		applyconfigurations.NewTypeConverter(scheme.Scheme), kinds{}, kinds{}, kinds{}, gvk, gvk.GroupVersion(), "",
		map[fieldpath.APIVersion]fieldpath.Filter{version: status})
	if err != nil {
		return nil, err
	}
	live, err := decode(q.Live, gvk)
	if err != nil {
		return nil, err
	}
	if q.Op == "apply" {
		return withoutTimes(manager.Apply(live, said, q.Manager, q.Force))
	}
	updated, err := decode(q.Patch, gvk)
	if err != nil {
		return nil, err
	}
	return withoutTimes(manager.Update(live, updated, q.Manager))
}

func withoutTimes(obj runtime.Object, err error) (interface{}, error) {
	if err != nil {
		return nil, err
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	fields := accessor.GetManagedFields()
	for index := range fields {
		fields[index].Time = nil
	}
	accessor.SetManagedFields(fields)
	return obj, nil
}

func answer(line []byte) map[string]interface{} {
	var q question
	if err := json.Unmarshal(line, &q); err != nil {
		return map[string]interface{}{"error": err.Error()}
	}
	said := &unstructured.Unstructured{}
	if err := json.Unmarshal(q.Patch, &said.Object); err != nil {
		return map[string]interface{}{"error": err.Error()}
	}
	var result interface{}
	var err error
	if q.Op == "merge" {
		result, err = merge(q, schema.GroupVersionKind{Version: "v1", Kind: "Pod"})
	} else {
		result, err = manage(q, said.GroupVersionKind(), said)
	}
	if err != nil {
		return map[string]interface{}{"error": err.Error()}
	}
	return map[string]interface{}{"result": result}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<20), 1<<26)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		if err := out.Encode(answer(lines.Bytes())); err != nil {
			panic(err)
		}
	}
}
